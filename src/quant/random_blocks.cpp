#include "quant/random_blocks.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "quant/codec.h"

namespace mlxn::quant {
namespace {

/// SplitMix64.
std::uint64_t next(std::uint64_t& state) noexcept {
  state += 0x9E3779B97F4A7C15u;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// Where a block keeps its scale and its minimum (-1: none), which are f16 but in some affine types, the size of scale * code for a scale of one, and the
/// ratio of minimum to scale that makes the mean zero: the mean of the codes.
struct Fields {
  int scale_at, min_at;
  float code_size, mean_code;
};
Fields fields(DType type) noexcept {
  if (const auto affine = affine_info(type)) {
    const int most = affine->bits == 8 ? 255 : 15;
    return {0, affine->scales == DType::f32 ? 4 : 2, static_cast<float>(most + 1) / 2, static_cast<float>(most) / 2};
  }
  switch (type) {
    case DType::q4_0: return {0, -1, 4, 0};
    case DType::q5_0: return {0, -1, 8, 0};
    case DType::q5_1: return {0, 2, 16, 15.5f};
    case DType::q8_0: return {0, -1, 64, 0};
    case DType::q2_K: return {80, 82, 1.5f * 8, 1.5f};
    case DType::q3_K: return {108, -1, 2 * 16, 0};
    case DType::q4_K: return {0, 2, 8 * 32, 7.5f};
    case DType::q5_K: return {0, 2, 16 * 32, 15.5f};
    case DType::q6_K: return {208, -1, 16 * 64, 0};
    case DType::iq4_nl: return {0, -1, 60, 0};
    case DType::iq4_xs: return {0, -1, 60 * 16, 0};
    default: return {-1, -1, 1, 1};
  }
}

/// A number in f32, f16 or bf16.
void put(std::uint8_t* to, DType type, float value) noexcept {
  const std::uint16_t narrow = type == DType::f16 ? f16(value).bits : bf16(value).bits;
  if (type == DType::f32) std::memcpy(to, &value, 4);
  else std::memcpy(to, &narrow, 2);
}

}  // namespace

void fill_random_blocks(DType type, void* blocks, std::uint64_t n_blocks, float scale, std::uint64_t seed) noexcept {
  auto* out = static_cast<std::uint8_t*>(blocks);
  std::uint64_t state = seed;
  const std::uint64_t bytes = n_blocks * block_bytes(type);
  if (type == DType::f32 || type == DType::f16 || type == DType::bf16) {
    for (std::uint64_t i = 0; i < n_blocks; ++i) {
      const float x = (static_cast<float>(next(state) >> 40) * 0x1p-23f - 1.0f) * scale;
      put(out + i * block_bytes(type), type, x);
    }
    return;
  }
  for (std::uint64_t i = 0; i < bytes; i += 8) {
    const std::uint64_t r = next(state);
    std::memcpy(out + i, &r, bytes - i < 8 ? bytes - i : 8);
  }
  const Fields at = fields(type);
  const auto affine = affine_info(type);
  const DType scales = affine ? affine->scales : DType::f16;
  for (std::uint64_t b = 0; b < n_blocks; ++b) {
    std::uint8_t* block = out + b * block_bytes(type);
    const std::uint64_t r = next(state);
    // Half to once the size, with either sign where there is no minimum.
    const float size = scale * (0.5f + static_cast<float>(r & 0xffff) * 0x1p-17f);
    if (type == DType::mxfp4) {
      int exponent = 127;
      for (float s = size / 2; s < 1 && exponent > 1; s *= 2) --exponent;
      block[0] = static_cast<std::uint8_t>(exponent);
      continue;
    }
    const bool negative = at.min_at < 0 && (r >> 32) % 2 != 0;
    put(block + at.scale_at, scales, (negative ? -size : size) / at.code_size);
    if (at.min_at >= 0) {
      // Affine types and q5_1 add their minimum, the others subtract it.
      const bool adds = affine || type == DType::q5_1;
      put(block + at.min_at, scales, (adds ? -size : size) / at.code_size * at.mean_code);
    }
  }
}

float random_scale(DType type, float rms) noexcept {
  constexpr std::uint64_t kElems = 16384;
  std::array<float, kElems> values;
  alignas(4) std::array<std::byte, 4 * kElems> blocks;
  const std::uint64_t n_blocks = kElems / block_elems(type);
  float scale = rms;
  // Rounding of the scales makes the size no straight line, so a few steps.
  for (int step = 0; step < 4; ++step) {
    fill_random_blocks(type, blocks.data(), n_blocks, scale, 1);
    dequantize_blocks(type, blocks.data(), n_blocks, values.data());
    double power = 0;
    for (const float v : values) power += static_cast<double>(v) * static_cast<double>(v);
    const double found = std::sqrt(power / kElems);
    if (!(found > 0)) break;  // below what the type can express
    scale *= static_cast<float>(static_cast<double>(rms) / found);
  }
  return scale;
}

}  // namespace mlxn::quant
