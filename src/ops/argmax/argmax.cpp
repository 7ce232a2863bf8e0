#include "ops/argmax/argmax.h"

#include "ops/argmax/cpu.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

/// Shorter rows are not worth the team's meeting.
constexpr std::int64_t kSharedRowElems = 16384;

constexpr IsaVariant<ArgmaxSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "argmax_avx512", &argmax_avx512},
    {CpuIsa::avx2, "argmax_avx2", &argmax_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "argmax_neon", &argmax_neon},
#endif
    {CpuIsa::scalar, "argmax_scalar", &argmax_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("argmax_avx512"),
    variant_info<CpuIsa::avx2>("argmax_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("argmax_neon"),
#endif
    variant_info<CpuIsa::scalar>("argmax_scalar"),
    gpu_variant_info("argmax_gpu"),
};

/// What the launch structs have in common.
template <class Args>
void fill(Launch<Args>& launch, const Tensor& x, const Tensor& ids, const Tensor& values) noexcept {
  launch.bind(launch.args.x, x);
  launch.bind(launch.args.ids, ids);
  if (values.defined()) launch.bind(launch.args.values, values);
  launch.args.rows = row_count(x);
  launch.args.n = x.dim(-1);
  launch.args.row_stride = x.rank() == 1 ? 0 : x.stride(0);
}

}  // namespace

extern const OpInfo op_argmax;
const OpInfo op_argmax = {"argmax", kInfos};

Result<void> encode_argmax(CommandEncoder& encoder, const Tensor& x, const Tensor& ids, const Tensor& values,
                           std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "argmax";
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "x", encoder, x, {DType::f32, DType::f16, DType::bf16}));
  if (x.rank() > 2)
    return make_error(ErrorCode::bad_shape, "{}: x is {}, wanted one or two axes", kOp, to_string(x.shape()));
  MLXN_CHECK(check_rows(kOp, "x", x));
  const std::int64_t rows = row_count(x), n = x.dim(-1);
  if (n > INT64_C(0xFFFFFFFF)) {
    return make_error(ErrorCode::bad_shape, "{}: rows of x have {} elements, wanted fewer than 2^32", kOp, n);
  }
  MLXN_CHECK(check_operand(kOp, "ids", encoder, ids, {DType::u32}));
  MLXN_CHECK(check_shape(kOp, "ids", ids, {rows}));
  MLXN_CHECK(check_contiguous(kOp, "ids", ids));
  MLXN_CHECK(check_no_overlap(kOp, "ids", ids, "x", x));
  if (values.defined()) {
    MLXN_CHECK(check_operand(kOp, "values", encoder, values, {DType::f32}));
    MLXN_CHECK(check_shape(kOp, "values", values, {rows}));
    MLXN_CHECK(check_contiguous(kOp, "values", values));
    MLXN_CHECK(check_no_overlap(kOp, "values", values, "x", x));
    MLXN_CHECK(check_no_overlap(kOp, "values", values, "ids", ids));
  }

  MLXN_TRY(const auto* variant, pick_for<ArgmaxSelect>(encoder, kOp, kVariants, isa));
  if (rows == 0) return {};

  if (variant == nullptr) {
    Launch<ArgmaxGpuArgs> launch;
    fill(launch, x, ids, values);
    return argmax_gpu(encoder, launch, x.dtype());
  }
  Launch<ArgmaxArgs> launch;
  fill(launch, x, ids, values);
  Tensor parts;  // the launch refers to it until it is recorded
  const int threads = cpu::threads(encoder);
  if (rows < threads && n >= kSharedRowElems) {
    const auto count = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(threads);
    MLXN_TRY(parts, cpu::scratch(encoder, count * sizeof(ArgmaxPart)));
    launch.bind(launch.args.parts, parts);
  }
  return cpu::encode(encoder, variant->select(variant->name, x.dtype()), launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> argmax(CommandEncoder& encoder, const Tensor& x, const Tensor& ids, const Tensor& values) {
  return detail::guarded([&] { return ops::encode_argmax(encoder, x, ids, values, std::nullopt); });
}

}  // namespace mlxn
