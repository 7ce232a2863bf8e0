#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// y[r,:] = exp(x[r,:] - max x[r,:]) / sum_c exp(x[r,c] - max x[r,:])                                              softmax
///
/// x  [rows, cols]  f32 f16 bf16; last axis contiguous, any row stride
/// y  [rows, cols]  x's dtype; last axis contiguous, any row stride; may be exactly x, any other overlap is an error
/// Numerics: in f32, rounded once, at the store; each row depends on that row only, bit for bit, whatever rows is.
/// A row that is -inf throughout gives zeros; a row with NaN or +inf gives NaN throughout.
/// Empty: rows == 0 succeeds and writes nothing; cols == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> softmax(CommandEncoder& encoder, const Tensor& x, const Tensor& y);

}  // namespace mlxn
