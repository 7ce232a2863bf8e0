#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// y = g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g^3))) / 2 * u         the gate of GeGLU, arXiv:2002.05202
///
/// g    [rows, dim], [a, b, dim] or [dim]   f32 f16 bf16; last axis contiguous, any stride of the others
/// u    g's shape and dtype, strides of its own: g and u may be the two halves of one row
/// y    g's shape and dtype; may be exactly g or exactly u, any other overlap is an error; rows must not overlap each other
/// Numerics: f32 inside, the product within 2e-6 (relative) for g > -4 and 2e-5 below, where the gate is small, before the one
/// rounding at the store; NaN and infinity as the formula gives them in IEEE arithmetic; a finite g below about -10.1 gives a
/// zero. The same bits on every instruction set and with any number of threads.
/// Empty: no rows succeeds and writes nothing; dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (an empty operand), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> gelu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y);

}  // namespace mlxn
