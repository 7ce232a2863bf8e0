#pragma once

#include "mlxn/encoder.h"
#include "mlxn/weight.h"

namespace mlxn {

/// y[i,:] = table[ids[i],:] * scale
///
/// ids    [seq]        u32, contiguous
/// table  [n, k]       a Weight of any weight type, prepared or raw; k is dim
/// y      [seq, dim]   f32 f16 bf16; last axis contiguous, any row stride; must not overlap ids or the table; rows must not
///                     overlap each other
/// scale  finite (Gemma multiplies by sqrt(dim))
/// Ids live in device memory and are read when the work runs: one that is not below n gives a row of zeros, never a read
/// outside the table.
/// Numerics: the exact f32 value of the weight, times scale in f32, rounded once at the store.
/// Empty: seq == 0 succeeds and writes nothing.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (scale, an empty operand), wrong_device, wrong_state,
/// out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> embedding(CommandEncoder& encoder, const Tensor& ids, const Weight& table, const Tensor& y,
                                     float scale = 1.0f);

}  // namespace mlxn
