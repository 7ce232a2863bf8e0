#include "ops/kv_append/kernel.h"
#include "ops/kv_append/kv_append.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {

Result<void> kv_append_gpu(CommandEncoder& encoder, const Launch<KvAppendArgs>& launch) {
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("kv_append", launch.args.seq * launch.args.kv_heads, 1));
  return gpu::encode(encoder, gpu::kv_append, {groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
