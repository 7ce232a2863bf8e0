#include "ops/rms_norm/kernel.h"
#include "ops/rms_norm/rms_norm.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

gpu::Kernel<RmsNormArgs> kernel_for(DType x, DType w, bool is_short) noexcept {
  using namespace gpu;
  if (x == DType::f32) return is_short ? rms_norm_short_f32 : rms_norm_f32;
  if (x == DType::f16 && w == DType::f16) return is_short ? rms_norm_short_f16 : rms_norm_f16;
  if (x == DType::f16) return is_short ? rms_norm_short_f16_f32 : rms_norm_f16_f32;
  if (w == DType::bf16) return is_short ? rms_norm_short_bf16 : rms_norm_bf16;
  return is_short ? rms_norm_short_bf16_f32 : rms_norm_bf16_f32;
}

}  // namespace

Result<void> rms_norm_gpu(CommandEncoder& encoder, const Launch<RmsNormArgs>& launch, DType x, DType w) {
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("rms_norm", launch.args.rows, 1));
  return gpu::encode(encoder, kernel_for(x, w, launch.args.dim <= kRmsNormShortRow), {groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
