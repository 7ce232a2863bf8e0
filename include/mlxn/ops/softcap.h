#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// y = cap * tanh(x / cap)                                            keeps logits between -cap and cap, arXiv:2408.00118
///
/// x    [rows, dim], [m, n, dim] or [dim]   f32 f16 bf16; last axis contiguous, any stride of the others
/// y    x's shape and dtype; may be exactly x, any other overlap is an error; rows must not overlap each other
/// cap  finite, above 0
/// Numerics: f32 inside, within 6e-7 (relative) before the one rounding at the store; infinity becomes cap, NaN stays. The
/// same bits on every instruction set and with any number of threads.
/// Empty: no rows succeeds and writes nothing; dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (cap, an empty operand), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> softcap(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float cap);

}  // namespace mlxn
