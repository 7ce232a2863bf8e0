#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "mlxn/quant.h"
#include "tests/support/must.h"
#include "tests/support/random.h"

namespace mlxn::test {

/// The formats that a product can have on its right side.
inline constexpr DType kWeightTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,   DType::q5_0,
                                         DType::q5_1, DType::q8_0, DType::q2_K, DType::q3_K, DType::q4_K,   DType::q5_K,
                                         DType::q6_K, DType::iq4_nl, DType::iq4_xs, DType::mxfp4, DType::affine4_g64,
                                         DType::affine4_g128, DType::affine8_g32, DType::affine8_g64, DType::affine8_g128,
                                         DType::affine4_g32_bf16, DType::affine4_g64_bf16, DType::affine4_g128_bf16,
                                         DType::affine8_g32_bf16, DType::affine8_g64_bf16, DType::affine8_g128_bf16,
                                         DType::affine4_g32_f32, DType::affine4_g64_f32, DType::affine4_g128_f32,
                                         DType::affine8_g32_f32, DType::affine8_g64_f32, DType::affine8_g128_f32};
/// Whether a CPU multiplies the type's codes with quantised activations.
inline bool has_int8act(DType type) {
  const auto affine = affine_info(type);
  return is_block(type) && !(affine && (affine->bits == 8 || affine->scales == DType::f32));
}

/// Where a block keeps its f16 scale and, below a minimum that is added or subtracted, the minimum; -1 for none. Affine types may
/// have other numbers than f16.
struct ScaleFields {
  int scale = -1;
  int minimum = -1;
  std::size_t bytes = 2;
};
inline ScaleFields scale_fields(DType type) {
  if (const auto affine = affine_info(type)) return affine->scales == DType::f32 ? ScaleFields{0, 4, 4} : ScaleFields{0, 2, 2};
  switch (type) {
    case DType::q4_0:
    case DType::q5_0:
    case DType::q8_0:
    case DType::iq4_nl:
    case DType::iq4_xs: return {0, -1};
    case DType::q5_1:
    case DType::q4_K:
    case DType::q5_K: return {0, 2};
    case DType::q2_K: return {80, 82};
    case DType::q3_K: return {108, -1};
    case DType::q6_K: return {208, -1};
    default: return {};
  }
}

/// Random weights of about unit size. Blocks hold every code and every sub-scale, their f16 scales have both signs, and
/// one in eight is a zero of either sign or subnormal. mxfp4 has ordinary exponents and now and then 0 or 1.
inline std::vector<std::byte> random_weights(DType type, std::size_t elems, Random& random) {
  std::vector<std::byte> out(elems / block_elems(type) * block_bytes(type));
  if (!is_block(type)) {
    must(quantize(type, random.uniform(elems, -1.0f, 1.0f), out));
    return out;
  }
  const auto half = [&](float size) {
    constexpr std::uint16_t kEdges[] = {0x0000, 0x8000, 0x0001, 0x83ff};
    if (random.below(8) == 0) return kEdges[random.below(4)];
    return f16(random.uniform(0.5f, 1.0f) * (random.below(2) ? size : -size)).bits;
  };
  // The same for scales of affine types: bf16 and f32 reach further down. f32 has 16 bits at most, so that products are exact.
  const auto number = [&](DType scales, float size, std::byte* to) {
    const std::uint16_t bits = half(size);
    float value = static_cast<float>(f16::from_bits(bits));
    if (scales != DType::f16 && random.below(16) == 0) value = std::ldexp(value, -100);
    must(quantize(scales, std::span(&value, 1), std::span(to, block_bytes(scales))));
  };
  const auto affine = affine_info(type);
  const ScaleFields fields = scale_fields(type);
  const bool super = block_elems(type) == 256;
  const float size = type == DType::q2_K ? 0x1p-5f : type == DType::q6_K ? 0x1p-11f : super ? 0x1p-9f : type == DType::q8_0 ? 0x1p-7f : 0x1p-4f;
  for (std::size_t at = 0; at < out.size(); at += block_bytes(type)) {
    std::byte* block = &out[at];
    for (std::size_t i = 0; i < block_bytes(type); ++i) block[i] = static_cast<std::byte>(random.bits());
    if (type == DType::mxfp4) {
      block[0] = static_cast<std::byte>(random.below(16) == 0 ? random.below(2) : 118 + random.below(10));
      continue;
    }
    if (affine) {
      number(affine->scales, affine->bits == 8 ? 0x1p-7f : 0x1p-4f, block + fields.scale);
      number(affine->scales, 0.5f, block + fields.minimum);
      continue;
    }
    const std::uint16_t scale = half(size);
    std::memcpy(block + fields.scale, &scale, 2);
    if (fields.minimum >= 0) {
      const std::uint16_t minimum = half(super ? size : 0.5f);
      std::memcpy(block + fields.minimum, &minimum, 2);
    }
  }
  return out;
}

inline std::vector<float> decoded(DType type, std::span<const std::byte> blocks) {
  std::vector<float> out(blocks.size() / block_bytes(type) * block_elems(type));
  must(dequantize(type, blocks, out));
  return out;
}

/// The magnitudes that enter a sum for each weight: |w|, or |scale * q| + |minimum| where a weight is the sum of two
/// terms, which a kernel may add up apart from each other.
inline std::vector<float> weight_magnitudes(DType type, std::span<const std::byte> blocks) {
  const std::vector<float> w = decoded(type, blocks);
  std::vector<float> out(w.size());
  const int minimum = scale_fields(type).minimum;
  std::vector<std::byte> without(blocks.begin(), blocks.end());
  for (std::size_t at = 0; minimum >= 0 && at < without.size(); at += block_bytes(type)) {
    std::memset(&without[at + static_cast<std::size_t>(minimum)], 0, scale_fields(type).bytes);
  }
  const std::vector<float> product = decoded(type, without);
  for (std::size_t i = 0; i < w.size(); ++i) out[i] = std::fabs(product[i]) + std::fabs(w[i] - product[i]);
  return out;
}

}  // namespace mlxn::test
