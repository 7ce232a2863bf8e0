#include "ops/rms_norm/rms_norm.h"

#include <cmath>

#include "ops/rms_norm/cpu.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<RmsNormSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "rms_norm_avx512", &rms_norm_avx512},
    {CpuIsa::avx2, "rms_norm_avx2", &rms_norm_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "rms_norm_neon", &rms_norm_neon},
#endif
    {CpuIsa::scalar, "rms_norm_scalar", &rms_norm_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("rms_norm_avx512"),
    variant_info<CpuIsa::avx2>("rms_norm_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("rms_norm_neon"),
#endif
    variant_info<CpuIsa::scalar>("rms_norm_scalar"),
    gpu_variant_info("rms_norm_gpu"),
};

}  // namespace

extern const OpInfo op_rms_norm;
const OpInfo op_rms_norm = {"rms_norm", kInfos};

Result<void> encode_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& w, const Tensor& y, float eps,
                             std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "rms_norm";
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "x", encoder, x, {DType::f32, DType::f16, DType::bf16}));
  MLXN_CHECK(check_rows(kOp, "x", x));
  if (w.defined()) {
    MLXN_CHECK(check_operand(kOp, "w", encoder, w, {DType::f32, x.dtype()}));
    MLXN_CHECK(check_shape(kOp, "w", w, {x.dim(-1)}));
    MLXN_CHECK(check_contiguous(kOp, "w", w));
  }
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {x.dtype()}));
  MLXN_CHECK(check_shape(kOp, "y", y, x.shape()));
  MLXN_CHECK(check_rows(kOp, "y", y));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_same_or_apart(kOp, "y", y, "x", x));
  if (w.defined()) MLXN_CHECK(check_no_overlap(kOp, "y", y, "w", w));
  if (!std::isfinite(eps) || eps <= 0) {
    return make_error(ErrorCode::invalid_argument, "{}: eps is {}, wanted a finite number above 0", kOp, eps);
  }

  MLXN_TRY(const auto* variant, pick_for<RmsNormSelect>(encoder, kOp, kVariants, isa));
  if (row_count(x) == 0) return {};

  Launch<RmsNormArgs> launch;
  launch.bind(launch.args.x, x);
  if (w.defined()) launch.bind(launch.args.w, w);
  launch.bind(launch.args.y, y);
  launch.args.rows = row_count(x);
  launch.args.dim = x.dim(-1);
  launch.args.x_strides = row_strides(x);
  launch.args.y_strides = row_strides(y);
  launch.args.eps = eps;
  const DType w_type = w.defined() ? w.dtype() : DType::f32;
  if (variant == nullptr) {
    launch.args.aligned = rows_aligned(x, 4) && rows_aligned(y, 4) && (!w.defined() || rows_aligned(w, 4)) ? 1 : 0;
    return rms_norm_gpu(encoder, launch, x.dtype(), w_type);
  }
  return cpu::encode(encoder, variant->select(variant->name, x.dtype(), w_type), launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& w, const Tensor& y, float eps) {
  return detail::guarded([&] { return ops::encode_rms_norm(encoder, x, w, y, eps, std::nullopt); });
}

}  // namespace mlxn
