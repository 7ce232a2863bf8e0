#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "quant/blocks.h"
#include "quant/codec.h"

// The arithmetic is ggml's, operation by operation in f32: the reciprocal of the unrounded scale is multiplied in, and
// the compiler must not contract a product and a sum (it would change about one Q4_0 block in 100 000).

namespace mlxn::quant {
namespace {

std::uint16_t half_bits(float x) noexcept { return f16(x).bits; }

// 1 / d; 0 where d is 0 or so small that the reciprocal overflows (the stored f16 scale is then 0 and codes are idle).
float reciprocal(float d) noexcept {
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  return std::isfinite(id) ? id : 0.0f;
}

// Truncation toward zero into 0..limit. Only scales that overflow bring NaN or values outside to this point.
int code(float x, int limit) noexcept {
  if (!(x > 0.0f)) return 0;
  return x < static_cast<float>(limit) ? static_cast<int>(x) : limit;
}

std::uint8_t pack(int low, int high) noexcept { return static_cast<std::uint8_t>((low & 15) | (high & 15) << 4); }

// The first element of largest magnitude, with its sign.
float signed_extreme(const float* x) noexcept {
  float magnitude = 0.0f;
  float extreme = 0.0f;
  for (int i = 0; i < kBlockElems; ++i) {
    if (std::fabs(x[i]) > magnitude) {
      magnitude = std::fabs(x[i]);
      extreme = x[i];
    }
  }
  return extreme;
}

struct Range {
  float min;
  float max;
};
Range range(const float* x) noexcept {
  Range r = {x[0], x[0]};
  for (int i = 1; i < kBlockElems; ++i) {
    if (x[i] < r.min) r.min = x[i];
    if (x[i] > r.max) r.max = x[i];
  }
  return r;
}

void pack_fifth_bits(const int* q, std::uint8_t* qh) noexcept {
  std::uint32_t bits = 0;
  for (int i = 0; i < kBlockElems; ++i) bits |= static_cast<std::uint32_t>(q[i] >> 4) << i;
  for (int i = 0; i < 4; ++i) qh[i] = static_cast<std::uint8_t>(bits >> (8 * i));
}

void encode(const float* x, BlockF32& b) noexcept { b.bits = std::bit_cast<std::uint32_t>(x[0]); }
void encode(const float* x, BlockF16& b) noexcept { b.bits = half_bits(x[0]); }
void encode(const float* x, BlockBF16& b) noexcept { b.bits = bf16(x[0]).bits; }

// The extreme lands on code 0, so the scale is negative when the extreme is positive.
void encode(const float* x, BlockQ4_0& b) noexcept {
  const float d = signed_extreme(x) / -8.0f;
  const float id = reciprocal(d);
  b.d = half_bits(d);
  for (int i = 0; i < 16; ++i) b.qs[i] = pack(code(x[i] * id + 8.5f, 15), code(x[i + 16] * id + 8.5f, 15));
}

void encode(const float* x, BlockQ4_1& b) noexcept {
  const Range r = range(x);
  const float d = (r.max - r.min) / 15.0f;
  const float id = reciprocal(d);
  b.d = half_bits(d);
  b.m = half_bits(r.min);
  for (int i = 0; i < 16; ++i) {
    b.qs[i] = pack(code((x[i] - r.min) * id + 0.5f, 15), code((x[i + 16] - r.min) * id + 0.5f, 15));
  }
}

void encode(const float* x, BlockQ5_0& b) noexcept {
  const float d = signed_extreme(x) / -16.0f;
  const float id = reciprocal(d);
  int q[kBlockElems];
  for (int i = 0; i < kBlockElems; ++i) q[i] = code(x[i] * id + 16.5f, 31);
  b.d = half_bits(d);
  for (int i = 0; i < 16; ++i) b.qs[i] = pack(q[i], q[i + 16]);
  pack_fifth_bits(q, b.qh);
}

void encode(const float* x, BlockQ5_1& b) noexcept {
  const Range r = range(x);
  const float d = (r.max - r.min) / 31.0f;
  const float id = reciprocal(d);
  int q[kBlockElems];
  for (int i = 0; i < kBlockElems; ++i) q[i] = code((x[i] - r.min) * id + 0.5f, 31);
  b.d = half_bits(d);
  b.m = half_bits(r.min);
  for (int i = 0; i < 16; ++i) b.qs[i] = pack(q[i], q[i + 16]);
  pack_fifth_bits(q, b.qh);
}

void encode(const float* x, BlockQ8_0& b) noexcept {
  const float d = std::fabs(signed_extreme(x)) / 127.0f;
  const float id = reciprocal(d);
  b.d = half_bits(d);
  for (int i = 0; i < kBlockElems; ++i) {
    const float q = std::round(x[i] * id);  // half away from zero
    b.qs[i] = static_cast<std::int8_t>(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q);
  }
}

void encode(const float* x, BlockMXFP4& b) noexcept {
  const float magnitude = std::fabs(signed_extreme(x));
  int e = 0;
  if (magnitude > 0.0f) {
    // ggml takes the logarithm in f32, which reaches the next whole number a few units in the last place early.
    e = static_cast<int>(std::floor(std::log2(magnitude))) - 2 + 127;
    if (e < 0) e = 0;  // below 2^-125, where the reference wraps around
  }
  b.e = static_cast<std::uint8_t>(e);
  const float d = e8m0_half(b.e);
  int q[kBlockElems];
  for (int i = 0; i < kBlockElems; ++i) {
    float least = std::numeric_limits<float>::infinity();
    q[i] = 0;
    for (int c = 0; c < 16; ++c) {
      const float error = std::fabs(d * static_cast<float>(kE2m1Doubled[c]) - x[i]);
      if (error < least) {
        least = error;
        q[i] = c;
      }
    }
  }
  for (int i = 0; i < 16; ++i) b.qs[i] = pack(q[i], q[i + 16]);
}

template <class Block, int kElems>
void encode_all(const float* x, std::uint64_t n_blocks, void* blocks) noexcept {
  for (std::uint64_t i = 0; i < n_blocks; ++i) {
    Block b;
    encode(x + i * kElems, b);
    std::memcpy(static_cast<std::byte*>(blocks) + i * sizeof(Block), &b, sizeof(Block));
  }
}

}  // namespace

bool has_encoder(DType type) noexcept {
  switch (type) {
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::q4_0:
    case DType::q4_1:
    case DType::q5_0:
    case DType::q5_1:
    case DType::q8_0:
    case DType::mxfp4: return true;
    default: return false;
  }
}

void quantize_blocks(DType type, const float* x, std::uint64_t n_blocks, void* blocks) noexcept {
  switch (type) {
    case DType::f32: return encode_all<BlockF32, 1>(x, n_blocks, blocks);
    case DType::f16: return encode_all<BlockF16, 1>(x, n_blocks, blocks);
    case DType::bf16: return encode_all<BlockBF16, 1>(x, n_blocks, blocks);
    case DType::q4_0: return encode_all<BlockQ4_0, kBlockElems>(x, n_blocks, blocks);
    case DType::q4_1: return encode_all<BlockQ4_1, kBlockElems>(x, n_blocks, blocks);
    case DType::q5_0: return encode_all<BlockQ5_0, kBlockElems>(x, n_blocks, blocks);
    case DType::q5_1: return encode_all<BlockQ5_1, kBlockElems>(x, n_blocks, blocks);
    case DType::q8_0: return encode_all<BlockQ8_0, kBlockElems>(x, n_blocks, blocks);
    case DType::mxfp4: return encode_all<BlockMXFP4, kBlockElems>(x, n_blocks, blocks);
    default: return;  // no encoder: excluded by the contract
  }
}

}  // namespace mlxn::quant
