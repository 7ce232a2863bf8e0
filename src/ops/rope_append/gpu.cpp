#include <algorithm>

#include "ops/rope_append/kernel.h"
#include "ops/rope_append/rope_append.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {

/// Many heads in a group share their sines; few tokens spread their heads over the device instead.
Result<void> rope_append_gpu(CommandEncoder& encoder, Launch<RopeAppendArgs>& launch) {
  constexpr std::int64_t kMostHeads = 8;
  RopeAppendArgs& args = launch.args;
  const std::int64_t heads = args.heads + 2 * args.kv_heads;
  const std::int64_t wanted = 2 * static_cast<std::int64_t>(gpu::device_cores(encoder));
  const auto blocks_of = [&](std::int64_t per_group) { return (heads + per_group - 1) / per_group; };
  std::int64_t per_group = std::max(kMostHeads, blocks_of(gpu::kMaxGridYZ));
  while (per_group > 1 && args.seq * blocks_of(per_group) < wanted && blocks_of(per_group / 2) <= gpu::kMaxGridYZ) per_group /= 2;
  args.heads_per_group = static_cast<std::uint32_t>(per_group);
  MLXN_TRY(const std::uint32_t tokens, gpu::groups_for("rope_append", args.seq, 1));
  return gpu::encode(encoder, gpu::rope_append, {tokens, static_cast<std::uint32_t>(blocks_of(per_group))}, launch);
}

}  // namespace ops
}  // namespace mlxn
