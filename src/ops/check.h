#pragma once

#include <string_view>

#include "base/error.h"
#include "mlxn/encoder.h"

namespace mlxn::ops {

/// Checks that the operations share. `op` and `name` go into the error's text: "rms_norm: x is f16, wanted f32".

/// Open encoder with a device.
[[nodiscard]] Result<void> check_encoder(std::string_view op, const CommandEncoder& encoder);
/// Defined, on the encoder's device, of one of the dtypes.
[[nodiscard]] Result<void> check_operand(std::string_view op, std::string_view name, const CommandEncoder& encoder,
                                         const Tensor& tensor, std::initializer_list<DType> dtypes);
/// Of exactly this shape.
[[nodiscard]] Result<void> check_shape(std::string_view op, std::string_view name, const Tensor& tensor, const Shape& wanted);
/// The last axis has stride 1 (or at most one element).
[[nodiscard]] Result<void> check_last_contiguous(std::string_view op, std::string_view name, const Tensor& tensor);
/// Row-major without gaps.
[[nodiscard]] Result<void> check_contiguous(std::string_view op, std::string_view name, const Tensor& tensor);
/// Shares no byte with the output.
[[nodiscard]] Result<void> check_no_overlap(std::string_view op, std::string_view out_name, const Tensor& out,
                                            std::string_view in_name, const Tensor& in);
/// Is exactly the output (same bytes, shape, strides and dtype) or shares no byte with it.
[[nodiscard]] Result<void> check_same_or_apart(std::string_view op, std::string_view out_name, const Tensor& out,
                                               std::string_view in_name, const Tensor& in);
/// A finite number.
[[nodiscard]] Result<void> check_finite(std::string_view op, std::string_view name, double value);

/// "[2, 4096]"
[[nodiscard]] std::string to_string(const Shape& shape);
/// "f32 [2, 4096]", or "an empty tensor".
[[nodiscard]] std::string describe(const Tensor& tensor);

}  // namespace mlxn::ops
