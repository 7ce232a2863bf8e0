#pragma once

#include <cstdint>

#include "mlxn/dtype.h"

namespace mlxn::quant {

/// The values of IQ4_NL and IQ4_XS codes.
inline constexpr std::int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
/// Twice the values of E2M1 codes, so that they are whole; the scale is halved instead (see e8m0_half).
inline constexpr std::int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(e - 128), half of an E8M0 scale. Subnormal for e < 2; finite for every byte.
[[nodiscard]] float e8m0_half(std::uint8_t e) noexcept;

/// Scale and minimum of sub-block s (0..7) in the 12 packed bytes of Q4_K and Q5_K.
inline void unpack_k4(const std::uint8_t* packed, int s, std::uint8_t* scale, std::uint8_t* minimum) noexcept {
  if (s < 4) {
    *scale = packed[s] & 63;
    *minimum = packed[s + 4] & 63;
  } else {
    *scale = static_cast<std::uint8_t>((packed[s + 4] & 15) | ((packed[s - 4] >> 6) << 4));
    *minimum = static_cast<std::uint8_t>((packed[s + 4] >> 4) | ((packed[s] >> 6) << 4));
  }
}

/// Writes the exact f32 values of n_blocks blocks. Every product of scale and integer fits an f32 significand, so there
/// is at most one rounding (of scale * q - minimum) and any compiler gives these bits; the sign of a zero is free.
/// blocks: any alignment. type: is_weight_type(type) must hold; for any other type nothing is written.
void dequantize_blocks(DType type, const void* blocks, std::uint64_t n_blocks, float* out) noexcept;

/// Whether quantize_blocks takes the type: f32, f16, bf16 and the six formats whose encoder is one formula.
[[nodiscard]] bool has_encoder(DType type) noexcept;

/// Encodes n_blocks blocks as ggml's reference does, byte for byte. x must be finite. A scale beyond the f16 range
/// becomes infinity in the block. blocks: any alignment. type: has_encoder(type) must hold, else nothing is written.
void quantize_blocks(DType type, const float* x, std::uint64_t n_blocks, void* blocks) noexcept;

/// The index of the first block that decodes to NaN or infinity because of its scales (an f16 scale that is not finite,
/// an E8M0 byte of 255) or, for plain elements, that is itself not finite; n_blocks if there is none.
/// type: is_weight_type(type) must hold, else the answer is n_blocks.
[[nodiscard]] std::uint64_t first_invalid_block(DType type, const void* blocks, std::uint64_t n_blocks) noexcept;

}  // namespace mlxn::quant
