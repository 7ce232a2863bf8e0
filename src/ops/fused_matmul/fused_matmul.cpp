#include "mlxn/ops/fused_matmul.h"

#include <cmath>

#include "backends/cpu/launch.h"
#include "backends/device_impl.h"
#include "backends/gpu/weight_prepare.h"
#include "backends/weight_impl.h"
#include "base/check_value.h"
#include "mlxn/ops/add.h"
#include "mlxn/ops/gelu_mul.h"
#include "mlxn/ops/rms_norm.h"
#include "mlxn/ops/silu_mul.h"
#include "ops/matmul/hopper.h"
#include "ops/matmul/matmul.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "fused_matmul";
constexpr VariantInfo kInfos[] = {
    variant_info<CpuIsa::scalar>("rms_norm, matmul, silu_mul or gelu_mul, add"),
    gpu_variant_info("fused_matmul_gpu"),
};

constexpr bool is_gated(const MatmulFusion& fusion) { return fusion.gate != MatmulGate::none; }

Result<void> check(const CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y, const MatmulFusion& fusion) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_enum(kOp, "gate", fusion.gate, MatmulGate::gelu));
  if (!weight.defined()) return make_error(ErrorCode::invalid_argument, "{}: weight is an empty handle", kOp);
  const Tensor& storage = weight.impl()->storage;
  MLXN_CHECK(check_operand(kOp, "weight", encoder, storage, {storage.dtype()}));
  if (fusion.norm.defined()) {
    MLXN_CHECK(check_operand(kOp, "x", encoder, x, {DType::f32}));
  } else {
    MLXN_CHECK(check_operand(kOp, "x", encoder, x, {DType::f32, DType::f16, DType::bf16}));
  }
  if (x.rank() != 2 || x.dim(0) == 0) {
    return make_error(ErrorCode::bad_shape, "{}: x is {}, wanted [m, {}] of at least one row", kOp, to_string(x.shape()), weight.k());
  }
  MLXN_CHECK(check_shape(kOp, "x", x, {x.dim(0), weight.k()}));
  MLXN_CHECK(check_last_contiguous(kOp, "x", x));
  if (is_gated(fusion) && weight.n() % 2 != 0) {
    return make_error(ErrorCode::bad_shape, "{}: weight has {} rows, wanted an even number for a gate", kOp, weight.n());
  }
  const Shape y_shape = {x.dim(0), is_gated(fusion) ? weight.n() / 2 : weight.n()};
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {DType::f32, DType::f16, DType::bf16}));
  MLXN_CHECK(check_shape(kOp, "y", y, y_shape));
  MLXN_CHECK(check_last_contiguous(kOp, "y", y));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "x", x));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "weight", storage));
  if (fusion.norm.defined()) {
    MLXN_CHECK(check_operand(kOp, "norm", encoder, fusion.norm, {DType::f32}));
    MLXN_CHECK(check_shape(kOp, "norm", fusion.norm, {weight.k()}));
    MLXN_CHECK(check_contiguous(kOp, "norm", fusion.norm));
    MLXN_CHECK(check_no_overlap(kOp, "y", y, "norm", fusion.norm));
    if (!std::isfinite(fusion.norm_eps) || fusion.norm_eps <= 0) {
      return make_error(ErrorCode::invalid_argument, "{}: norm_eps is {}, wanted a finite number above 0", kOp, fusion.norm_eps);
    }
  }
  if (fusion.residual.defined()) {
    MLXN_CHECK(check_operand(kOp, "residual", encoder, fusion.residual, {y.dtype()}));
    MLXN_CHECK(check_shape(kOp, "residual", fusion.residual, y_shape));
    MLXN_CHECK(check_last_contiguous(kOp, "residual", fusion.residual));
    MLXN_CHECK(check_same_or_apart(kOp, "y", y, "residual", fusion.residual));
  }
  struct Work {
    std::string_view name;
    const Tensor& tensor;
    DType dtype;
    std::int64_t columns;
  };
  for (const Work& work : {Work{"normed", fusion.normed, DType::f32, weight.k()}, Work{"product", fusion.product, y.dtype(), weight.n()}}) {
    if (!work.tensor.defined()) continue;
    MLXN_CHECK(check_operand(kOp, work.name, encoder, work.tensor, {work.dtype}));
    MLXN_CHECK(check_shape(kOp, work.name, work.tensor, {x.dim(0), work.columns}));
    MLXN_CHECK(check_last_contiguous(kOp, work.name, work.tensor));
    MLXN_CHECK(check_rows_apart(kOp, work.name, work.tensor));
    const std::pair<std::string_view, const Tensor*> others[] = {
        {"x", &x}, {"weight", &storage}, {"norm", &fusion.norm}, {"residual", &fusion.residual}};
    for (const auto& [name, other] : others) {
      if (other->defined()) MLXN_CHECK(check_no_overlap(kOp, work.name, work.tensor, name, *other));
    }
  }
  if (fusion.normed.defined()) MLXN_CHECK(check_no_overlap(kOp, "y", y, "normed", fusion.normed));
  if (fusion.product.defined() && is_gated(fusion)) {
    MLXN_TRY(const Tensor left, fusion.product.slice(1, 0, weight.n() / 2));
    const bool is_left = device_address(y) == device_address(left) && y.strides() == left.strides();
    if (!is_left) MLXN_CHECK(check_no_overlap(kOp, "y", y, "product", fusion.product));
  } else if (fusion.product.defined()) {
    MLXN_CHECK(check_no_overlap(kOp, "y", y, "product", fusion.product));
  }
  if (fusion.normed.defined() && fusion.product.defined()) {
    MLXN_CHECK(check_no_overlap(kOp, "normed", fusion.normed, "product", fusion.product));
  }
  return {};
}

/// The tensor, or scratch memory of that shape.
Result<Tensor> work(CommandEncoder& encoder, const Tensor& tensor, DType dtype, std::int64_t rows, std::int64_t columns) {
  if (tensor.defined()) return tensor;
  const std::uint64_t bytes = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns) * block_bytes(dtype);
  MLXN_TRY(const Tensor scratch, gpu::on_gpu(encoder) ? gpu::scratch(encoder, bytes) : cpu::scratch(encoder, bytes));
  MLXN_TRY(const Tensor exact, scratch.slice(0, 0, static_cast<std::int64_t>(bytes)));
  return exact.reinterpret(dtype, {rows, columns});
}

/// The operations one after the other, which the caller, where it orders the memory, cannot part. If memory runs out on the way,
/// nothing but `normed` has been written. multiply(in, out): the product, with the norm if it is `normed` there.
template <class Multiply>
Result<void> compose(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y, const MatmulFusion& fusion,
                     bool normed, const Multiply& multiply) {
  const std::int64_t m = x.dim(0), n = weight.n();
  const bool in_place = fusion.residual.defined() && device_address(fusion.residual) == device_address(y);
  Tensor h = x, p = y;
  if (fusion.norm.defined() && !normed) {
    MLXN_TRY(h, work(encoder, fusion.normed, DType::f32, m, weight.k()));
  }
  if (is_gated(fusion) || in_place) {
    MLXN_TRY(p, work(encoder, fusion.product, y.dtype(), m, n));
  }
  if (fusion.norm.defined() && !normed) {
    MLXN_CHECK(rms_norm(encoder, x, fusion.norm, h, fusion.norm_eps));
    MLXN_CHECK(encoder.barrier());
  }
  MLXN_CHECK(multiply(h, p));
  if (is_gated(fusion)) {
    MLXN_CHECK(encoder.barrier());
    MLXN_TRY(const Tensor gate, p.slice(1, 0, n / 2));
    MLXN_TRY(const Tensor up, p.slice(1, n / 2, n));
    const Tensor& out = fusion.residual.defined() ? gate : y;
    MLXN_CHECK(fusion.gate == MatmulGate::silu ? silu_mul(encoder, gate, up, out) : gelu_mul(encoder, gate, up, out));
    p = out;
  }
  if (!fusion.residual.defined()) return {};
  MLXN_CHECK(encoder.barrier());
  return add(encoder, p, fusion.residual, y);
}

}  // namespace

extern const OpInfo op_fused_matmul;
const OpInfo op_fused_matmul = {"fused_matmul", kInfos};

Result<void> encode_fused_matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                                 const MatmulFusion& fusion, const MatmulOptions& options) {
  MLXN_CHECK(check(encoder, x, weight, y, fusion));
  if (!fusion.norm.defined() && !is_gated(fusion) && !fusion.residual.defined()) {
    return encode_matmul(encoder, x, weight, y, options, std::nullopt);
  }
  const MatmulShape shape = {x.dim(0), weight.n(), weight.k(), weight.dtype()};
  MLXN_TRY(const MatmulChoice choice, choose_matmul(kOp, encoder, weight.impl()->form, shape, options));
  const bool aligned = !fusion.norm.defined() || reinterpret_cast<std::uintptr_t>(device_address(fusion.norm)) % 16 == 0;
  const GpuOperand weights = {weight.impl()->storage, weight.impl()->form};
  HopperFuses fuses = HopperFuses::none;
  if (gpu::on_gpu(encoder) && aligned) fuses = fuses_hopper(weights.form, shape, fusion.gate, choice, gpu::device_cores(encoder));
  switch (fuses) {
    case HopperFuses::all: return fused_matmul_hopper(kOp, encoder, x, weights, y, shape, fusion, choice);
    case HopperFuses::all_but_gate:
      return compose(encoder, x, weight, y, fusion, true, [&](const Tensor& in, const Tensor& out) {
        MatmulFusion norm;
        norm.norm = fusion.norm, norm.norm_eps = fusion.norm_eps;
        return fused_matmul_hopper(kOp, encoder, in, weights, out, shape, norm, choice);
      });
    case HopperFuses::none: break;
  }
  return compose(encoder, x, weight, y, fusion, false, [&](const Tensor& in, const Tensor& out) {
    return encode_matmul(encoder, in, weight, out, options, std::nullopt);
  });
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> fused_matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y, const MatmulFusion& fusion,
                          const MatmulOptions& options) {
  return detail::guarded([&] { return ops::encode_fused_matmul(encoder, x, weight, y, fusion, options); });
}

Result<bool> fuses_matmul(const Device& device, const MatmulShape& shape, MatmulGate gate, const MatmulOptions& options) {
  return detail::guarded([&]() -> Result<bool> {
    MLXN_CHECK(check_enum("fuses_matmul", "gate", gate, MatmulGate::gelu));
    MLXN_TRY(const ops::MatmulChoice choice, ops::choose_matmul("fuses_matmul", device, shape, options));
    if (!device.impl()->is_gpu()) return false;
    return ops::fuses_hopper(gpu::prepared_form(device, shape.type), shape, gate, choice,
                             static_cast<std::uint32_t>(device.capabilities().compute_units)) == ops::HopperFuses::all;
  });
}

}  // namespace mlxn
