#include "ops/check.h"

#include <algorithm>
#include <cmath>

#include "backends/command_list.h"
#include "backends/device_impl.h"
#include "base/join.h"

namespace mlxn::ops {

std::string to_string(const Shape& shape) { return fmt::format("[{}]", joined(shape)); }

std::string describe(const Tensor& tensor) {
  return tensor.defined() ? fmt::format("{} {}", mlxn::to_string(tensor.dtype()), to_string(tensor.shape())) : "an empty tensor";
}

Result<void> check_encoder(std::string_view op, const CommandEncoder& encoder) {
  if (encoder.list() == nullptr) return make_error(ErrorCode::wrong_state, "{}: the encoder is empty or was committed", op);
  return encoder.list()->device()->check_fork(op);
}

Result<void> check_operand(std::string_view op, std::string_view name, const CommandEncoder& encoder, const Tensor& tensor,
                           std::initializer_list<DType> dtypes) {
  if (!tensor.defined()) return make_error(ErrorCode::invalid_argument, "{}: {} is an empty tensor", op, name);
  if (tensor.allocation() && !(tensor.device() == encoder.device())) {
    return make_error(ErrorCode::wrong_device, "{}: {} lives on another device than the encoder", op, name);
  }
  std::string wanted;
  for (const DType* type = dtypes.begin(); type != dtypes.end(); ++type) {
    if (tensor.dtype() == *type) return {};
    if (std::find(dtypes.begin(), type, *type) != type) continue;  // "f32 or x's type" may be the same
    if (!wanted.empty()) wanted += ", ";
    wanted += mlxn::to_string(*type);
  }
  return make_error(ErrorCode::bad_dtype, "{}: {} is {}, wanted {}", op, name, mlxn::to_string(tensor.dtype()), wanted);
}

Result<void> check_shape(std::string_view op, std::string_view name, const Tensor& tensor, const Shape& wanted) {
  if (tensor.shape() == wanted) return {};
  return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted {}", op, name, to_string(tensor.shape()), to_string(wanted));
}

Result<void> check_last_contiguous(std::string_view op, std::string_view name, const Tensor& tensor) {
  if (tensor.rank() == 0 || tensor.dim(-1) <= 1 || tensor.stride(-1) == 1) return {};
  return make_error(ErrorCode::bad_shape, "{}: the last axis of {} has stride {}, wanted 1", op, name, tensor.stride(-1));
}

Result<void> check_contiguous(std::string_view op, std::string_view name, const Tensor& tensor) {
  if (tensor.is_contiguous()) return {};
  return make_error(ErrorCode::bad_shape, "{}: {} has strides {} for shape {}, wanted a contiguous tensor", op, name,
                    to_string(tensor.strides()), to_string(tensor.shape()));
}

Result<void> check_no_overlap(std::string_view op, std::string_view out_name, const Tensor& out, std::string_view in_name,
                              const Tensor& in) {
  if (!out.overlaps(in)) return {};
  return make_error(ErrorCode::aliased, "{}: {} overlaps {}", op, out_name, in_name);
}

Result<void> check_same_or_apart(std::string_view op, std::string_view out_name, const Tensor& out, std::string_view in_name,
                                 const Tensor& in) {
  if (!out.overlaps(in)) return {};
  if (out.byte_offset() == in.byte_offset() && out.dtype() == in.dtype() && out.shape() == in.shape() &&
      out.strides() == in.strides()) {
    return {};
  }
  return make_error(ErrorCode::aliased, "{}: {} overlaps {} without being exactly it", op, out_name, in_name);
}

Result<void> check_finite(std::string_view op, std::string_view name, double value) {
  if (std::isfinite(value)) return {};
  return make_error(ErrorCode::invalid_argument, "{}: {} is {}, wanted a finite number", op, name, value);
}

}  // namespace mlxn::ops
