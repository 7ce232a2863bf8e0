#include "ops/rope/rope.h"

#include "base/check_value.h"
#include "ops/rope/cpu.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<RopeSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "rope_avx512", &rope_avx512},
    {CpuIsa::avx2, "rope_avx2", &rope_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "rope_neon", &rope_neon},
#endif
    {CpuIsa::scalar, "rope_scalar", &rope_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("rope_avx512"),
    variant_info<CpuIsa::avx2>("rope_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("rope_neon"),
#endif
    variant_info<CpuIsa::scalar>("rope_scalar"),
    gpu_variant_info("rope_gpu"),
};

}  // namespace

extern const OpInfo op_rope;
const OpInfo op_rope = {"rope", kInfos};

Result<void> check_rope_input(std::string_view op, std::string_view name, const CommandEncoder& encoder, const Tensor& x,
                              const Tensor& positions, const RopeTable& table) {
  if (table.head_dim() == 0) return make_error(ErrorCode::invalid_argument, "{}: the table is empty", op);
  MLXN_CHECK(check_operand(op, name, encoder, x, {DType::f32, DType::f16, DType::bf16}));
  if (x.rank() != 3 || x.dim(2) != table.head_dim()) {
    return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted [seq, heads, {}]", op, name, to_string(x.shape()), table.head_dim());
  }
  MLXN_CHECK(check_last_contiguous(op, name, x));
  MLXN_CHECK(check_operand(op, "positions", encoder, positions, {DType::i32}));
  MLXN_CHECK(check_shape(op, "positions", positions, {x.dim(0)}));
  MLXN_CHECK(check_contiguous(op, "positions", positions));
  if (table.pairs() > 0) MLXN_CHECK(check_operand(op, "the table", encoder, table.inv_freq(), {DType::f32}));
  return {};
}

Result<void> encode_rope(CommandEncoder& encoder, const Tensor& x, const Tensor& positions, const RopeTable& table,
                         const Tensor& y, RopeDirection direction, std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "rope";
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_enum(kOp, "direction", direction, RopeDirection::inverse));
  MLXN_CHECK(check_rope_input(kOp, "x", encoder, x, positions, table));
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {x.dtype()}));
  MLXN_CHECK(check_shape(kOp, "y", y, x.shape()));
  MLXN_CHECK(check_rows(kOp, "y", y));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_same_or_apart(kOp, "y", y, "x", x));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "positions", positions));
  if (table.pairs() > 0) MLXN_CHECK(check_no_overlap(kOp, "y", y, "the table", table.inv_freq()));

  MLXN_TRY(const auto* variant, pick_for<RopeSelect>(encoder, kOp, kVariants, isa));
  if (x.elems() == 0) return {};

  const bool inverse = direction == RopeDirection::inverse;
  Launch<RopeArgs> launch;
  launch.bind(launch.args.x, x);
  launch.bind(launch.args.positions, positions);
  if (table.pairs() > 0) launch.bind(launch.args.inv_freq, table.inv_freq());
  launch.bind(launch.args.y, y);
  launch.args.x_row = x.stride(0);
  launch.args.x_head = x.stride(1);
  launch.args.y_row = y.stride(0);
  launch.args.y_head = y.stride(1);
  launch.args.seq = x.dim(0);
  launch.args.heads = x.dim(1);
  launch.args.head_dim = x.dim(2);
  launch.args.pairs = table.pairs();
  launch.args.split_offset = table.split_offset();
  launch.args.adjacent = table.pairing() == RopePairing::adjacent ? 1 : 0;
  launch.args.sign = inverse ? -1.0f : 1.0f;
  launch.args.magnitude = inverse ? 1.0f / table.magnitude() : table.magnitude();
  if (variant == nullptr) return rope_gpu(encoder, launch, x.dtype());
  return cpu::encode(encoder, variant->select(variant->name, x.dtype()), launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> rope(CommandEncoder& encoder, const Tensor& x, const Tensor& positions, const RopeTable& table, const Tensor& y,
                  RopeDirection direction) {
  return detail::guarded([&] { return ops::encode_rope(encoder, x, positions, table, y, direction, std::nullopt); });
}

}  // namespace mlxn
