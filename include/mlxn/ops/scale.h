#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// y = x * factor
///
/// x       [rows, dim], [m, n, dim] or [dim]   f32 f16 bf16; last axis contiguous, any stride of the others
/// y       x's shape and dtype; may be exactly x, any other overlap is an error; rows must not overlap each other
/// factor  finite
/// Numerics: one f32 product, rounded once at the store; NaN and infinity as in IEEE arithmetic.
/// Empty: no rows succeeds and writes nothing; dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (factor, an empty operand), wrong_device, wrong_state,
/// out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> scale(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float factor);

}  // namespace mlxn
