#include <bit>
#include <cmath>
#include <cstring>

#include "quant/blocks.h"
#include "quant/codec.h"

namespace mlxn::quant {
namespace {

float half(std::uint16_t bits) noexcept { return static_cast<float>(f16::from_bits(bits)); }

int low(std::uint8_t b) noexcept { return b & 15; }
int high(std::uint8_t b) noexcept { return b >> 4; }

std::uint32_t read_u32(const std::uint8_t* p) noexcept {
  return p[0] | std::uint32_t{p[1]} << 8 | std::uint32_t{p[2]} << 16 | std::uint32_t{p[3]} << 24;
}

// Element i of a block whose nibbles are split in halves.
int half_split(const std::uint8_t* qs, int i) noexcept { return i < 16 ? low(qs[i]) : high(qs[i - 16]); }

// Each decode() writes the elements of one block in order; blocks.h has the formulas.

void decode(const BlockF32& b, float* out) noexcept { out[0] = std::bit_cast<float>(b.bits); }
void decode(const BlockF16& b, float* out) noexcept { out[0] = half(b.bits); }
void decode(const BlockBF16& b, float* out) noexcept { out[0] = static_cast<float>(bf16::from_bits(b.bits)); }

void decode(const BlockQ4_0& b, float* out) noexcept {
  const float d = half(b.d);
  for (int i = 0; i < kBlockElems; ++i) out[i] = d * static_cast<float>(half_split(b.qs, i) - 8);
}

void decode(const BlockQ5_0& b, float* out) noexcept {
  const float d = half(b.d);
  const std::uint32_t qh = read_u32(b.qh);
  for (int i = 0; i < kBlockElems; ++i) {
    const int q = half_split(b.qs, i) | static_cast<int>((qh >> i) & 1u) << 4;
    out[i] = d * static_cast<float>(q - 16);
  }
}

void decode(const BlockQ5_1& b, float* out) noexcept {
  const float d = half(b.d);
  const float m = half(b.m);
  const std::uint32_t qh = read_u32(b.qh);
  for (int i = 0; i < kBlockElems; ++i) {
    const int q = half_split(b.qs, i) | static_cast<int>((qh >> i) & 1u) << 4;
    out[i] = d * static_cast<float>(q) + m;
  }
}

void decode(const BlockQ8_0& b, float* out) noexcept {
  const float d = half(b.d);
  for (int i = 0; i < kBlockElems; ++i) out[i] = d * static_cast<float>(b.qs[i]);
}

// The 2-bit part of element i in Q2_K and Q3_K.
int bit_pair(const std::uint8_t* qs, int i) noexcept { return (qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3; }

void decode(const BlockQ2_K& b, float* out) noexcept {
  const float d = half(b.d);
  const float dmin = half(b.dmin);
  for (int i = 0; i < kSuperElems; ++i) {
    const std::uint8_t s = b.scales[i / 16];
    const float scale = d * static_cast<float>(low(s));
    const float minimum = dmin * static_cast<float>(high(s));
    out[i] = scale * static_cast<float>(bit_pair(b.qs, i)) - minimum;
  }
}

void decode(const BlockQ3_K& b, float* out) noexcept {
  const float d = half(b.d);
  for (int i = 0; i < kSuperElems; ++i) {
    const int s = i / 16;
    const int low_bits = s < 8 ? low(b.scales[s]) : high(b.scales[s - 8]);
    const int high_bits = (b.scales[8 + s % 4] >> (s / 4 * 2)) & 3;
    const float scale = d * static_cast<float>((low_bits | high_bits << 4) - 32);
    const bool set = ((b.hmask[i % 32] >> (i / 32)) & 1) != 0;
    out[i] = scale * static_cast<float>(bit_pair(b.qs, i) - (set ? 0 : 4));
  }
}

// The 4-bit part of element i in Q4_K and Q5_K.
int k4_nibble(const std::uint8_t* qs, int i) noexcept {
  const std::uint8_t byte = qs[i / 64 * 32 + i % 32];
  return (i / 32) & 1 ? high(byte) : low(byte);
}

void decode(const BlockQ4_K& b, float* out) noexcept {
  const float d = half(b.d);
  const float dmin = half(b.dmin);
  for (int s = 0; s < 8; ++s) {
    std::uint8_t sc = 0;
    std::uint8_t mn = 0;
    unpack_k4(b.scales, s, &sc, &mn);
    const float scale = d * static_cast<float>(sc);
    const float minimum = dmin * static_cast<float>(mn);
    for (int i = 32 * s; i < 32 * s + 32; ++i) out[i] = scale * static_cast<float>(k4_nibble(b.qs, i)) - minimum;
  }
}

void decode(const BlockQ5_K& b, float* out) noexcept {
  const float d = half(b.d);
  const float dmin = half(b.dmin);
  for (int s = 0; s < 8; ++s) {
    std::uint8_t sc = 0;
    std::uint8_t mn = 0;
    unpack_k4(b.scales, s, &sc, &mn);
    const float scale = d * static_cast<float>(sc);
    const float minimum = dmin * static_cast<float>(mn);
    for (int i = 32 * s; i < 32 * s + 32; ++i) {
      const int q = k4_nibble(b.qs, i) | ((b.qh[i % 32] >> s) & 1) << 4;
      out[i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void decode(const BlockQ6_K& b, float* out) noexcept {
  const float d = half(b.d);
  for (int i = 0; i < kSuperElems; ++i) {
    const int h = i / 128;
    const int g = i % 128 / 32;
    const int l = i % 32;
    const std::uint8_t byte = b.ql[64 * h + 32 * (g & 1) + l];
    const int q = (g >> 1 ? high(byte) : low(byte)) | ((b.qh[32 * h + l] >> (2 * g)) & 3) << 4;
    out[i] = d * static_cast<float>(b.scales[i / 16]) * static_cast<float>(q - 32);
  }
}

void decode(const BlockIQ4_NL& b, float* out) noexcept {
  const float d = half(b.d);
  for (int i = 0; i < kBlockElems; ++i) out[i] = d * static_cast<float>(kIq4Values[half_split(b.qs, i)]);
}

void decode(const BlockIQ4_XS& b, float* out) noexcept {
  const float d = half(b.d);
  for (int s = 0; s < 8; ++s) {
    const int sc = ((b.scales_l[s / 2] >> (4 * (s % 2))) & 15) | ((b.scales_h >> (2 * s)) & 3) << 4;
    const float scale = d * static_cast<float>(sc - 32);
    for (int i = 0; i < 32; ++i) {
      out[32 * s + i] = scale * static_cast<float>(kIq4Values[half_split(b.qs + 16 * s, i)]);
    }
  }
}

void decode(const BlockMXFP4& b, float* out) noexcept {
  const float d = e8m0_half(b.e);
  for (int i = 0; i < kBlockElems; ++i) out[i] = d * static_cast<float>(kE2m1Doubled[half_split(b.qs, i)]);
}

bool finite_half(std::uint16_t bits) noexcept { return (bits & 0x7c00u) != 0x7c00u; }

bool valid(const BlockF32& b) noexcept { return (b.bits & 0x7f800000u) != 0x7f800000u; }
bool valid(const BlockF16& b) noexcept { return finite_half(b.bits); }
bool valid(const BlockBF16& b) noexcept { return (b.bits & 0x7f80u) != 0x7f80u; }
bool valid(const BlockMXFP4& b) noexcept { return b.e != 255; }
template <class Block>
bool valid(const Block& b) noexcept {
  if constexpr (requires { b.m; }) return finite_half(b.d) && finite_half(b.m);
  if constexpr (requires { b.dmin; }) return finite_half(b.d) && finite_half(b.dmin);
  return finite_half(b.d);
}

template <class Block>
Block load(const void* blocks, std::uint64_t index) noexcept {
  Block b;
  std::memcpy(&b, static_cast<const std::byte*>(blocks) + index * sizeof(Block), sizeof(Block));
  return b;
}

template <class Block, int kElems>
void decode_all(const void* blocks, std::uint64_t n_blocks, float* out) noexcept {
  for (std::uint64_t i = 0; i < n_blocks; ++i) decode(load<Block>(blocks, i), out + i * kElems);
}

template <class Block>
std::uint64_t find_invalid(const void* blocks, std::uint64_t n_blocks) noexcept {
  std::uint64_t i = 0;
  while (i < n_blocks && valid(load<Block>(blocks, i))) ++i;
  return i;
}

// ---- affine groups

struct ScaleAndBias {
  float scale, bias;
};
ScaleAndBias read_scale_and_bias(const std::uint8_t* block, DType type) noexcept {
  if (type == DType::f32) return {std::bit_cast<float>(read_u32(block)), std::bit_cast<float>(read_u32(block + 4))};
  const std::uint32_t both = read_u32(block);
  const auto number = [type](std::uint32_t bits) {
    const auto narrow = static_cast<std::uint16_t>(bits);
    return type == DType::f16 ? half(narrow) : static_cast<float>(bf16::from_bits(narrow));
  };
  return {number(both), number(both >> 16)};
}

void decode_groups(const AffineInfo& type, std::uint32_t bytes, const std::uint8_t* block, std::uint64_t n_blocks, float* out) noexcept {
  const std::uint8_t* end = block + n_blocks * bytes;
  for (; block != end; block += bytes, out += type.group) {
    const auto [scale, bias] = read_scale_and_bias(block, type.scales);
    const std::uint8_t* qs = block + (type.scales == DType::f32 ? 8 : 4);
    for (std::uint32_t i = 0; i < type.group; ++i) {
      const int code = type.bits == 8 ? qs[i] : half_split(qs + i / 32 * 16, static_cast<int>(i % 32));
      const auto q = static_cast<float>(code);
      // The product with an f32 scale is not exact; only this way it is rounded once with the sum.
      out[i] = type.scales == DType::f32 ? std::fma(scale, q, bias) : scale * q + bias;
    }
  }
}

std::uint64_t find_invalid_group(const AffineInfo& type, std::uint32_t bytes, const std::uint8_t* block, std::uint64_t n_blocks) noexcept {
  for (std::uint64_t i = 0; i < n_blocks; ++i) {
    const auto [scale, bias] = read_scale_and_bias(block + i * bytes, type.scales);
    if (!std::isfinite(scale) || !std::isfinite(bias)) return i;
  }
  return n_blocks;
}

}  // namespace

float e8m0_half(std::uint8_t e) noexcept {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (std::uint32_t{e} - 1u) << 23);
}

void dequantize_blocks(DType type, const void* blocks, std::uint64_t n_blocks, float* out) noexcept {
  if (const auto affine = affine_info(type)) {
    return decode_groups(*affine, block_bytes(type), static_cast<const std::uint8_t*>(blocks), n_blocks, out);
  }
  switch (type) {
    case DType::f32: return decode_all<BlockF32, 1>(blocks, n_blocks, out);
    case DType::f16: return decode_all<BlockF16, 1>(blocks, n_blocks, out);
    case DType::bf16: return decode_all<BlockBF16, 1>(blocks, n_blocks, out);
    case DType::q4_0: return decode_all<BlockQ4_0, kBlockElems>(blocks, n_blocks, out);
    case DType::q5_0: return decode_all<BlockQ5_0, kBlockElems>(blocks, n_blocks, out);
    case DType::q5_1: return decode_all<BlockQ5_1, kBlockElems>(blocks, n_blocks, out);
    case DType::q8_0: return decode_all<BlockQ8_0, kBlockElems>(blocks, n_blocks, out);
    case DType::q2_K: return decode_all<BlockQ2_K, kSuperElems>(blocks, n_blocks, out);
    case DType::q3_K: return decode_all<BlockQ3_K, kSuperElems>(blocks, n_blocks, out);
    case DType::q4_K: return decode_all<BlockQ4_K, kSuperElems>(blocks, n_blocks, out);
    case DType::q5_K: return decode_all<BlockQ5_K, kSuperElems>(blocks, n_blocks, out);
    case DType::q6_K: return decode_all<BlockQ6_K, kSuperElems>(blocks, n_blocks, out);
    case DType::iq4_nl: return decode_all<BlockIQ4_NL, kBlockElems>(blocks, n_blocks, out);
    case DType::iq4_xs: return decode_all<BlockIQ4_XS, kSuperElems>(blocks, n_blocks, out);
    case DType::mxfp4: return decode_all<BlockMXFP4, kBlockElems>(blocks, n_blocks, out);
    default: return;  // no weight type: excluded by the contract
  }
}

std::uint64_t first_invalid_block(DType type, const void* blocks, std::uint64_t n_blocks) noexcept {
  if (const auto affine = affine_info(type)) {
    return find_invalid_group(*affine, block_bytes(type), static_cast<const std::uint8_t*>(blocks), n_blocks);
  }
  switch (type) {
    case DType::f32: return find_invalid<BlockF32>(blocks, n_blocks);
    case DType::f16: return find_invalid<BlockF16>(blocks, n_blocks);
    case DType::bf16: return find_invalid<BlockBF16>(blocks, n_blocks);
    case DType::q4_0: return find_invalid<BlockQ4_0>(blocks, n_blocks);
    case DType::q5_0: return find_invalid<BlockQ5_0>(blocks, n_blocks);
    case DType::q5_1: return find_invalid<BlockQ5_1>(blocks, n_blocks);
    case DType::q8_0: return find_invalid<BlockQ8_0>(blocks, n_blocks);
    case DType::q2_K: return find_invalid<BlockQ2_K>(blocks, n_blocks);
    case DType::q3_K: return find_invalid<BlockQ3_K>(blocks, n_blocks);
    case DType::q4_K: return find_invalid<BlockQ4_K>(blocks, n_blocks);
    case DType::q5_K: return find_invalid<BlockQ5_K>(blocks, n_blocks);
    case DType::q6_K: return find_invalid<BlockQ6_K>(blocks, n_blocks);
    case DType::iq4_nl: return find_invalid<BlockIQ4_NL>(blocks, n_blocks);
    case DType::iq4_xs: return find_invalid<BlockIQ4_XS>(blocks, n_blocks);
    case DType::mxfp4: return find_invalid<BlockMXFP4>(blocks, n_blocks);
    default: return n_blocks;  // no weight type: excluded by the contract
  }
}

}  // namespace mlxn::quant
