#include "backends/gpu/launch.h"
#include "ops/silu_mul/kernel.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {

gpu::Kernel<ElementwiseArgs> silu_mul_gpu(DType a, DType) noexcept {
  if (a == DType::f16) return gpu::silu_mul_f16;
  if (a == DType::bf16) return gpu::silu_mul_bf16;
  return gpu::silu_mul_f32;
}

}  // namespace ops
}  // namespace mlxn
