#include "ops/sample/kernel.h"
#include "ops/sample/sample.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

/// What sample_row of kernel.h lays out.
std::uint64_t slot_bytes(std::uint64_t vocab, std::uint64_t chunks) noexcept {
  const std::uint64_t bytes = 4 * gpu::kSampleHeadWords + 16 * chunks + 12 * vocab;
  return (bytes + 255) / 256 * 256;
}

}  // namespace

Result<void> sample_gpu(CommandEncoder& encoder, Launch<SampleArgs>& launch) {
  SampleArgs& args = launch.args;
  const auto vocab = static_cast<std::uint64_t>(args.vocab), rows = static_cast<std::uint64_t>(args.rows);
  const std::uint64_t chunks = (vocab + gpu::kSampleChunk - 1) / gpu::kSampleChunk;
  MLXN_TRY(const std::uint32_t row_groups, gpu::groups_for("sample", args.rows, 1));
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("sample", args.rows * static_cast<std::int64_t>(chunks), 1));
  args.chunks = static_cast<std::uint32_t>(chunks);
  args.slot_bytes = slot_bytes(vocab, chunks);
  MLXN_TRY(const Tensor workspace, gpu::scratch(encoder, rows * args.slot_bytes));
  launch.bind(args.workspace, workspace);
  MLXN_CHECK(gpu::encode(encoder, gpu::sample_prepare, {groups}, launch));
  if (args.temperature != 0) {
    MLXN_CHECK(gpu::encode(encoder, gpu::sample_weigh, {groups}, launch));
    if (is_ordered(args)) MLXN_CHECK(gpu::encode(encoder, gpu::sample_gather, {groups}, launch));
  }
  return gpu::encode(encoder, gpu::sample_draw, {row_groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
