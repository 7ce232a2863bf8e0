#include "backends/gpu/launch.h"
#include "ops/set_element/kernel.h"
#include "ops/set_element/set_element.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {

Result<void> set_element_gpu(CommandEncoder& encoder, const Launch<SetElementArgs>& launch) {
  return gpu::encode(encoder, gpu::set_element_u32, {}, launch);
}

}  // namespace ops
}  // namespace mlxn
