#include <algorithm>

#include "ops/argmax/argmax.h"
#include "ops/argmax/kernel.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

struct Kernels {
  gpu::Kernel<ArgmaxGpuArgs> find, merge;
};
Kernels kernels_for(DType x) noexcept {
  if (x == DType::f16) return {gpu::argmax_f16, gpu::argmax_merge_f16};
  if (x == DType::bf16) return {gpu::argmax_bf16, gpu::argmax_merge_bf16};
  return {gpu::argmax_f32, gpu::argmax_merge_f32};
}

/// Shorter parts are not worth a second launch.
constexpr std::int64_t kLeastPart = 4096;

}  // namespace

Result<void> argmax_gpu(CommandEncoder& encoder, Launch<ArgmaxGpuArgs>& launch, DType x) {
  ArgmaxGpuArgs& args = launch.args;
  const std::int64_t wanted = std::int64_t{2} * gpu::device_cores(encoder);
  const std::int64_t parts = args.rows >= wanted ? 1 : std::min((wanted + args.rows - 1) / args.rows, args.n / kLeastPart);
  args.part_elems = parts <= 1 ? args.n : ((args.n + parts - 1) / parts + 63) / 64 * 64;
  args.parts_per_row = (args.n + args.part_elems - 1) / args.part_elems;
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("argmax", args.rows * args.parts_per_row, 1));
  const Kernels kernels = kernels_for(x);
  if (args.parts_per_row == 1) return gpu::encode(encoder, kernels.find, {groups}, launch);
  MLXN_TRY(const Tensor parts_tensor, gpu::scratch(encoder, groups * sizeof(std::uint64_t)));
  launch.bind(args.parts, parts_tensor);
  MLXN_CHECK(gpu::encode(encoder, kernels.find, {groups}, launch));
  return gpu::encode(encoder, kernels.merge, {static_cast<std::uint32_t>(args.rows)}, launch);
}

}  // namespace ops
}  // namespace mlxn
