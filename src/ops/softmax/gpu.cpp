#include "ops/softmax/kernel.h"
#include "ops/softmax/softmax.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

/// One of three kernels, by the type.
template <class Kernel>
Kernel by_type(DType x, Kernel f32, Kernel f16, Kernel bf16) noexcept {
  return x == DType::f16 ? f16 : x == DType::bf16 ? bf16 : f32;
}

}  // namespace

Result<void> softmax_gpu(CommandEncoder& encoder, const Launch<SoftmaxArgs>& launch, DType x) {
  const std::int64_t rows = launch.args.rows, cols = launch.args.cols;
  if (cols <= kSoftmaxShortCols) {
    MLXN_TRY(const std::uint32_t groups, gpu::groups_for("softmax", rows, kSoftmaxShortRows));
    return gpu::encode(encoder, by_type(x, gpu::softmax_short_f32, gpu::softmax_short_f16, gpu::softmax_short_bf16), {groups}, launch);
  }
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("softmax", rows, 1));
  if (cols <= kSoftmaxKeptCols) {
    return gpu::encode(encoder, by_type(x, gpu::softmax_kept_f32, gpu::softmax_kept_f16, gpu::softmax_kept_bf16), {groups}, launch);
  }
  return gpu::encode(encoder, by_type(x, gpu::softmax_long_f32, gpu::softmax_long_f16, gpu::softmax_long_bf16), {groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
