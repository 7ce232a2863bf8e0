#include "backends/gpu/launch.h"
#include "ops/scale/kernel.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {

gpu::Kernel<ElementwiseArgs> scale_gpu(DType a, DType) noexcept {
  if (a == DType::f16) return gpu::scale_f16;
  if (a == DType::bf16) return gpu::scale_bf16;
  return gpu::scale_f32;
}

}  // namespace ops
}  // namespace mlxn
