#include "ops/elementwise_encode.h"

namespace mlxn::ops {

Result<void> encode_elementwise(const ElementwiseOp& op, CommandEncoder& encoder, const Tensor& a, const Tensor& b,
                                const Tensor& y, float factor, std::optional<CpuIsa> isa) {
  MLXN_CHECK(check_encoder(op.name, encoder));
  MLXN_CHECK(check_operand(op.name, op.a_name, encoder, a, {DType::f32, DType::f16, DType::bf16}));
  MLXN_CHECK(check_rows(op.name, op.a_name, a));
  bool one_row = false;
  if (!op.b_name.empty()) {
    if (op.row_b && a.dtype() != DType::f32) {
      MLXN_CHECK(check_operand(op.name, op.b_name, encoder, b, {a.dtype(), DType::f32}));
    } else {
      MLXN_CHECK(check_operand(op.name, op.b_name, encoder, b, {a.dtype()}));
    }
    one_row = op.row_b && b.rank() == 1 && a.rank() > 1;
    MLXN_CHECK(check_shape(op.name, op.b_name, b, one_row ? Shape{a.dim(-1)} : a.shape()));
    MLXN_CHECK(check_rows(op.name, op.b_name, b));
  }
  MLXN_CHECK(check_operand(op.name, "y", encoder, y, {a.dtype()}));
  MLXN_CHECK(check_shape(op.name, "y", y, a.shape()));
  MLXN_CHECK(check_rows(op.name, "y", y));
  MLXN_CHECK(check_rows_apart(op.name, "y", y));
  MLXN_CHECK(check_same_or_apart(op.name, "y", y, op.a_name, a));
  if (!op.b_name.empty()) MLXN_CHECK(check_same_or_apart(op.name, "y", y, op.b_name, b));

  MLXN_TRY(const auto* variant, pick_for(encoder, op.name, op.variants, isa));
  if (row_count(a) == 0) return {};

  Launch<ElementwiseArgs> launch;
  launch.bind(launch.args.a, a);
  if (!op.b_name.empty()) launch.bind(launch.args.b, b);
  launch.bind(launch.args.y, y);
  launch.args.rows = row_count(a);
  launch.args.dim = a.dim(-1);
  launch.args.a_strides = row_strides(a);
  launch.args.b_strides = one_row || op.b_name.empty() ? kSameRow : row_strides(b);
  launch.args.y_strides = row_strides(y);
  launch.args.factor = factor;
  const DType b_type = op.b_name.empty() ? a.dtype() : b.dtype();
  if (variant != nullptr) return cpu::encode(encoder, variant->select(variant->name, a.dtype(), b_type), launch);
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for(op.name, a.elems(), kElementwisePerGroup));
  return gpu::encode(encoder, op.gpu(a.dtype(), b_type), {groups}, launch);
}

}  // namespace mlxn::ops
