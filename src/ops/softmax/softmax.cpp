#include "ops/softmax/softmax.h"

#include "ops/row_check.h"
#include "ops/softmax/cpu.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<SoftmaxSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "softmax_avx512", &softmax_avx512},
    {CpuIsa::avx2, "softmax_avx2", &softmax_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "softmax_neon", &softmax_neon},
#endif
    {CpuIsa::scalar, "softmax_scalar", &softmax_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("softmax_avx512"),
    variant_info<CpuIsa::avx2>("softmax_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("softmax_neon"),
#endif
    variant_info<CpuIsa::scalar>("softmax_scalar"),
    gpu_variant_info("softmax_gpu"),
};

}  // namespace

extern const OpInfo op_softmax;
const OpInfo op_softmax = {"softmax", kInfos};

Result<void> encode_softmax(CommandEncoder& encoder, const Tensor& x, const Tensor& y, std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "softmax";
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "x", encoder, x, {DType::f32, DType::f16, DType::bf16}));
  if (x.rank() != 2) return make_error(ErrorCode::bad_shape, "{}: x is {}, wanted [rows, cols]", kOp, to_string(x.shape()));
  MLXN_CHECK(check_rows(kOp, "x", x));
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {x.dtype()}));
  MLXN_CHECK(check_shape(kOp, "y", y, x.shape()));
  MLXN_CHECK(check_rows(kOp, "y", y));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_same_or_apart(kOp, "y", y, "x", x));

  MLXN_TRY(const auto* variant, pick_for<SoftmaxSelect>(encoder, kOp, kVariants, isa));
  if (x.dim(0) == 0) return {};

  Launch<SoftmaxArgs> launch;
  launch.bind(launch.args.x, x);
  launch.bind(launch.args.y, y);
  launch.args.rows = x.dim(0);
  launch.args.cols = x.dim(1);
  launch.args.x_row = x.stride(0);
  launch.args.y_row = y.stride(0);
  if (variant == nullptr) return softmax_gpu(encoder, launch, x.dtype());
  return cpu::encode(encoder, variant->select(variant->name, x.dtype()), launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> softmax(CommandEncoder& encoder, const Tensor& x, const Tensor& y) {
  return detail::guarded([&] { return ops::encode_softmax(encoder, x, y, std::nullopt); });
}

}  // namespace mlxn
