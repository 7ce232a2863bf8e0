#pragma once

#include <cstddef>
#include <span>

#include "mlxn/dtype.h"
#include "mlxn/result.h"

namespace mlxn {

/// out[i] = the exact f32 value of element i of `blocks`
///
/// type    a weight type: f32, f16, bf16, or a block format with kernels (is_weight_type)
/// blocks  whole blocks as they lie in a GGUF file (of affine types: as mlx_blocks makes them), any alignment
/// out     one float per element; must not overlap blocks
/// Numerics: exact; a value that is scale * q - minimum, or + bias, is rounded once. The sign of a zero is free.
/// Empty: no bytes and no floats succeed.
/// Errors: unsupported (a type without decoder), bad_dtype (a number that is no type), bad_shape (a partial block, out of another size).
[[nodiscard]] Result<void> dequantize(DType type, std::span<const std::byte> blocks, std::span<float> out);

/// blocks = x encoded, byte for byte as ggml's reference encoders do it
///
/// type    f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0 or mxfp4
/// x       whole blocks of elements, finite; must not overlap blocks
/// blocks  as many bytes as the blocks of x take, any alignment
/// Numerics: f32 without contraction; scales and minima are rounded to f16, nearest even.
/// Empty: no floats and no bytes succeed.
/// Errors: unsupported (a type without encoder), bad_dtype (a number that is no type), bad_shape (a partial block, blocks of
/// another size), out_of_range (an element that is not finite, or one too large for the type's scales; blocks then hold unspecified
/// bytes).
[[nodiscard]] Result<void> quantize(DType type, std::span<const float> x, std::span<std::byte> blocks);

/// Checks that no block decodes to NaN or infinity because of its scales: f16 scales are finite and E8M0 bytes are not
/// 255. Plain elements have to be finite themselves. Reads every block: meant for files of doubtful origin.
/// Errors: unsupported, bad_dtype and bad_shape as dequantize; corrupt_file (rule V17) with the index of the first bad block.
[[nodiscard]] Result<void> validate_blocks(DType type, std::span<const std::byte> blocks);

}  // namespace mlxn
