#include "backends/gpu/launch.h"
#include "ops/mul/kernel.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {

gpu::Kernel<ElementwiseArgs> mul_gpu(DType a, DType b) noexcept {
  if (a == DType::f16 && b == DType::f16) return gpu::mul_f16;
  if (a == DType::bf16 && b == DType::bf16) return gpu::mul_bf16;
  if (a == DType::f16 && b == DType::f32) return gpu::mul_f16_f32;
  if (a == DType::bf16 && b == DType::f32) return gpu::mul_bf16_f32;
  return gpu::mul_f32;
}

}  // namespace ops
}  // namespace mlxn
