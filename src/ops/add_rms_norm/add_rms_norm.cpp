#include "ops/add_rms_norm/add_rms_norm.h"

#include <cmath>

#include "ops/add_rms_norm/cpu.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<AddRmsNormSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "add_rms_norm_avx512", &add_rms_norm_avx512},
    {CpuIsa::avx2, "add_rms_norm_avx2", &add_rms_norm_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "add_rms_norm_neon", &add_rms_norm_neon},
#endif
    {CpuIsa::scalar, "add_rms_norm_scalar", &add_rms_norm_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("add_rms_norm_avx512"),
    variant_info<CpuIsa::avx2>("add_rms_norm_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("add_rms_norm_neon"),
#endif
    variant_info<CpuIsa::scalar>("add_rms_norm_scalar"),
    gpu_variant_info("add_rms_norm_gpu"),
};

}  // namespace

extern const OpInfo op_add_rms_norm;
const OpInfo op_add_rms_norm = {"add_rms_norm", kInfos};

Result<void> encode_add_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& sum,
                                 const Tensor& y, float eps, std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "add_rms_norm";
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "x", encoder, x, {DType::f32, DType::f16, DType::bf16}));
  MLXN_CHECK(check_rows(kOp, "x", x));
  const std::pair<std::string_view, const Tensor*> like_x[] = {{"residual", &residual}, {"sum", &sum}, {"y", &y}};
  for (const auto& [name, tensor] : like_x) {
    MLXN_CHECK(check_operand(kOp, name, encoder, *tensor, {x.dtype()}));
    MLXN_CHECK(check_shape(kOp, name, *tensor, x.shape()));
    MLXN_CHECK(check_rows(kOp, name, *tensor));
  }
  if (w.defined()) {
    MLXN_CHECK(check_operand(kOp, "w", encoder, w, {DType::f32, x.dtype()}));
    MLXN_CHECK(check_shape(kOp, "w", w, {x.dim(-1)}));
    MLXN_CHECK(check_contiguous(kOp, "w", w));
    MLXN_CHECK(check_no_overlap(kOp, "sum", sum, "w", w));
    MLXN_CHECK(check_no_overlap(kOp, "y", y, "w", w));
  }
  for (const auto& [name, tensor] : {like_x[1], like_x[2]}) {
    MLXN_CHECK(check_rows_apart(kOp, name, *tensor));
    MLXN_CHECK(check_same_or_apart(kOp, name, *tensor, "x", x));
    MLXN_CHECK(check_same_or_apart(kOp, name, *tensor, "residual", residual));
  }
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "sum", sum));
  if (!std::isfinite(eps) || eps <= 0) {
    return make_error(ErrorCode::invalid_argument, "{}: eps is {}, wanted a finite number above 0", kOp, eps);
  }

  MLXN_TRY(const auto* variant, pick_for<AddRmsNormSelect>(encoder, kOp, kVariants, isa));
  if (row_count(x) == 0) return {};

  Launch<AddRmsNormArgs> launch;
  launch.bind(launch.args.x, x);
  launch.bind(launch.args.residual, residual);
  if (w.defined()) launch.bind(launch.args.w, w);
  launch.bind(launch.args.sum, sum);
  launch.bind(launch.args.y, y);
  launch.args.rows = row_count(x);
  launch.args.dim = x.dim(-1);
  launch.args.x_strides = row_strides(x);
  launch.args.residual_strides = row_strides(residual);
  launch.args.sum_strides = row_strides(sum);
  launch.args.y_strides = row_strides(y);
  launch.args.eps = eps;
  const DType w_type = w.defined() ? w.dtype() : DType::f32;
  if (variant != nullptr) return cpu::encode(encoder, variant->select(variant->name, x.dtype(), w_type), launch);
  launch.args.aligned = rows_aligned(x, 4) && rows_aligned(residual, 4) && rows_aligned(sum, 4) && rows_aligned(y, 4) &&
                                (!w.defined() || rows_aligned(w, 4))
                            ? 1
                            : 0;
  return add_rms_norm_gpu(encoder, launch, x.dtype(), w_type);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> add_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& sum,
                          const Tensor& y, float eps) {
  return detail::guarded([&] { return ops::encode_add_rms_norm(encoder, x, residual, w, sum, y, eps, std::nullopt); });
}

}  // namespace mlxn
