#include <algorithm>

#include "ops/rope/kernel.h"
#include "ops/rope/rope.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

gpu::Kernel<RopeArgs> kernel_for(DType x) noexcept {
  if (x == DType::f16) return gpu::rope_f16;
  if (x == DType::bf16) return gpu::rope_bf16;
  return gpu::rope_f32;
}

}  // namespace

/// Many heads in a group share their sines; few tokens spread their heads over the device instead.
Result<void> rope_gpu(CommandEncoder& encoder, const Launch<RopeArgs>& launch, DType x) {
  constexpr std::int64_t kMostHeads = 8;
  Launch<RopeArgs> filled = launch;
  RopeArgs& args = filled.args;
  const std::int64_t wanted = 2 * static_cast<std::int64_t>(gpu::device_cores(encoder));
  const auto blocks_of = [&](std::int64_t heads) { return (args.heads + heads - 1) / heads; };
  args.heads_per_group = std::max(kMostHeads, blocks_of(gpu::kMaxGridYZ));
  while (args.heads_per_group > 1 && args.seq < wanted && args.seq * blocks_of(args.heads_per_group) < wanted &&
         blocks_of(args.heads_per_group / 2) <= gpu::kMaxGridYZ) {
    args.heads_per_group /= 2;
  }
  MLXN_TRY(const std::uint32_t tokens, gpu::groups_for("rope", args.seq, 1));
  const auto blocks = static_cast<std::uint32_t>(blocks_of(args.heads_per_group));
  return gpu::encode(encoder, kernel_for(x), {tokens, blocks}, filled);
}

}  // namespace ops
}  // namespace mlxn
