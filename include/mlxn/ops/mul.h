#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// y = a * b                                                                    a gate or, with one row, a scale per column
///
/// a    [rows, dim], [m, n, dim] or [dim]   f32 f16 bf16; last axis contiguous, any stride of the others
/// b    a's shape, or [dim]: one row for all rows of a; a's dtype or f32
/// y    a's shape and dtype; may be exactly a or exactly b, any other overlap is an error; rows must not overlap each other
/// Numerics: one f32 operation, rounded once at the store; NaN and infinity as in IEEE arithmetic.
/// Empty: no rows succeeds and writes nothing; dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (an empty operand), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> mul(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y);

}  // namespace mlxn
