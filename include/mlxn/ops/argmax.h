#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// ids[r] = index of the greatest x[r,:], the lowest one among equals
///
/// x       [rows, n] or [n]   f32 f16 bf16; last axis contiguous, any row stride; 0 < n < 2^32
/// ids     [rows] ([1] for x [n])   u32, contiguous
/// values  as ids, f32: x[r, ids[r]]; empty: not wanted
/// NaN never wins; a row of NaN alone gives index 0 and value -infinity. -0 and +0 are equal.
/// No two of x, ids and values may overlap.
/// Empty: rows == 0 succeeds and writes nothing; n == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (an empty x or ids), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> argmax(CommandEncoder& encoder, const Tensor& x, const Tensor& ids, const Tensor& values = {});

}  // namespace mlxn
