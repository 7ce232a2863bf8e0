#include "ops/add_rms_norm/add_rms_norm.h"
#include "ops/add_rms_norm/kernel.h"
#include "ops/rms_norm/rms_norm.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

gpu::Kernel<AddRmsNormArgs> kernel_for(DType x, DType w, bool is_short) noexcept {
  using namespace gpu;
  if (x == DType::f32) return is_short ? add_rms_norm_short_f32 : add_rms_norm_f32;
  if (x == DType::f16 && w == DType::f16) return is_short ? add_rms_norm_short_f16 : add_rms_norm_f16;
  if (x == DType::f16) return is_short ? add_rms_norm_short_f16_f32 : add_rms_norm_f16_f32;
  if (w == DType::bf16) return is_short ? add_rms_norm_short_bf16 : add_rms_norm_bf16;
  return is_short ? add_rms_norm_short_bf16_f32 : add_rms_norm_bf16_f32;
}

}  // namespace

Result<void> add_rms_norm_gpu(CommandEncoder& encoder, const Launch<AddRmsNormArgs>& launch, DType x, DType w) {
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("add_rms_norm", launch.args.rows, 1));
  return gpu::encode(encoder, kernel_for(x, w, launch.args.dim <= kRmsNormShortRow), {groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
