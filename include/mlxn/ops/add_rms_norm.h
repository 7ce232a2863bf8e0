#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// sum = x + residual,  y[r,:] = w * sum[r,:] / sqrt(mean(sum[r,:]^2) + eps)      a residual and the norm after it, in one pass
///
/// x         [rows, dim], [m, n, dim] (leading axes are the rows) or [dim]; f32 f16 bf16; last axis contiguous, any stride of
///           the others
/// residual  x's shape and dtype, likewise
/// w         [dim]  f32 or x's dtype, contiguous; empty means all ones
/// sum       x's shape and dtype; may be exactly x or exactly residual; rows must not overlap each other
/// y         likewise; may be exactly the one of x and residual that sum is not; any other overlap of sum or y is an error
/// eps       > 0 and finite, added to the mean square (same unit as sum squared)
/// Numerics: the same bits as add(x, residual, sum) and then rms_norm(sum, w, y, eps): the sum is rounded to its dtype before it
/// is squared.
/// Empty: no rows succeeds and writes nothing; dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (eps, an empty operand), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> add_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& residual, const Tensor& w,
                                        const Tensor& sum, const Tensor& y, float eps);

}  // namespace mlxn
