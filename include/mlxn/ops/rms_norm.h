#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// y[r,:] = w * x[r,:] / sqrt(mean(x[r,:]^2) + eps)                          RMSNorm, arXiv:1910.07467
///
/// x    [rows, dim] or [seq, heads, dim] (its leading axes are the rows) or [dim]; f32 f16 bf16; last axis contiguous, any
///      stride of the others
/// w    [dim]        f32 or x's dtype, contiguous; empty means all ones
/// y    x's shape and dtype; may be exactly x, any other overlap with x or w is an error; rows must not overlap each other
/// eps  > 0 and finite, added to the mean square (same unit as x squared)
/// Numerics: sums in f32, rounded once at the store; each row depends on that row only, bit for bit, whatever rows is, and
/// is the same on every instruction set. A square beyond f32 makes the row zero, as f32 arithmetic does.
/// Empty: rows == 0 succeeds and writes nothing; dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (eps, an empty x or y), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& w, const Tensor& y, float eps);

}  // namespace mlxn
