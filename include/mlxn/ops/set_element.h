#pragma once

#include <cstdint>

#include "mlxn/encoder.h"

namespace mlxn {

/// y[index] = value                       one integer; as parameters of a Graph both numbers may change from replay to replay
///
/// y      [n]   u32 or i32, contiguous; n > 0
/// index  0 <= index < n
/// value  a number of y's type
/// Graph::set refuses an index or a value outside these bounds.
/// Errors: bad_shape, bad_dtype, out_of_range (index, value), invalid_argument (an empty y), wrong_device, wrong_state,
/// out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> set_element(CommandEncoder& encoder, const Tensor& y, const Scalar<std::int64_t>& index,
                                       const Scalar<std::int64_t>& value);

}  // namespace mlxn
