// Pairs of f16 in a word as numbers, low half first. The functions give the same bits on the host, so that
// what a kernel makes of its weights is tested without a GPU.
#pragma once

#include <cstdint>

#if !defined(__CUDA_ARCH__)
#include <cmath>
#include <cstring>
#endif

namespace mlxn::sm90 {

#if defined(__CUDACC__)
#define MLXN_HALF_FN __host__ __device__ __forceinline__
#else
#define MLXN_HALF_FN inline
#endif

#if !defined(__CUDA_ARCH__)
namespace host {
inline double value_of(std::uint32_t half) {
  const int exponent = half >> 10 & 31;
  const double fraction = half & 1023u;
  double v = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) v = fraction == 0 ? INFINITY : NAN;
  return (half & 0x8000u) != 0 ? -v : v;
}
/// To nearest, ties to even.
inline std::uint32_t half_of(double v) {
  const std::uint32_t sign = std::signbit(v) ? 0x8000u : 0;
  v = std::fabs(v);
  if (std::isnan(v)) return 0x7E00u;
  if (v == 0 || std::isinf(v)) return sign | (v == 0 ? 0 : 0x7C00u);
  int exponent = 0;
  std::frexp(v, &exponent);
  const int unit = exponent - 11 > -24 ? exponent - 11 : -24;
  const double units = std::nearbyint(std::ldexp(v, -unit));
  if (std::ldexp(units, unit) > 65504.0) return sign | 0x7C00u;
  const auto whole = static_cast<std::uint32_t>(units);  // at most 2^11
  return sign | ((static_cast<std::uint32_t>(unit + 24) << 10) + whole);
}
inline std::uint32_t pair(double low, double high) { return half_of(low) | half_of(high) << 16; }
}  // namespace host
#endif

MLXN_HALF_FN std::uint32_t h2_fma(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#else
  using namespace host;
  return pair(value_of(a & 0xFFFF) * value_of(b & 0xFFFF) + value_of(c & 0xFFFF),
              value_of(a >> 16) * value_of(b >> 16) + value_of(c >> 16));
#endif
}
MLXN_HALF_FN std::uint32_t h2_mul(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  using namespace host;
  return pair(value_of(a & 0xFFFF) * value_of(b & 0xFFFF), value_of(a >> 16) * value_of(b >> 16));
#endif
}
MLXN_HALF_FN std::uint32_t h2_add(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  using namespace host;
  return pair(value_of(a & 0xFFFF) + value_of(b & 0xFFFF), value_of(a >> 16) + value_of(b >> 16));
#endif
}
/// a * b - c.
MLXN_HALF_FN std::uint32_t h2_fma_minus(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("{\n .reg .b32 n;\n neg.f16x2 n, %3;\n fma.rn.f16x2 %0, %1, %2, n;\n}"
      : "=r"(d)
      : "r"(a), "r"(b), "r"(c));
  return d;
#else
  return h2_fma(a, b, c ^ 0x80008000u);
#endif
}
/// -most..most; NaN becomes -most.
MLXN_HALF_FN std::uint32_t h2_within(std::uint32_t a, std::uint32_t most) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("{\n .reg .b32 n;\n neg.f16x2 n, %2;\n max.f16x2 n, %1, n;\n min.f16x2 %0, n, %2;\n}"
      : "=r"(d)
      : "r"(a), "r"(most));
  return d;
#else
  const auto one = [](std::uint32_t half, std::uint32_t limit) {
    const double v = host::value_of(half), m = host::value_of(limit);
    return v > m ? limit : v >= -m ? half : limit ^ 0x8000u;
  };
  return one(a & 0xFFFFu, most & 0xFFFFu) | one(a >> 16, most >> 16) << 16;
#endif
}

/// One half of a pair twice; an operand of the functions above costs nothing when made so.
MLXN_HALF_FN std::uint32_t h2_low(std::uint32_t a) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("{\n .reg .b16 l, h;\n mov.b32 {l, h}, %1;\n mov.b32 %0, {l, l};\n}" : "=r"(d) : "r"(a));
  return d;
#else
  return (a & 0xFFFF) * 0x10001u;
#endif
}
MLXN_HALF_FN std::uint32_t h2_high(std::uint32_t a) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("{\n .reg .b16 l, h;\n mov.b32 {l, h}, %1;\n mov.b32 %0, {h, h};\n}" : "=r"(d) : "r"(a));
  return d;
#else
  return (a >> 16) * 0x10001u;
#endif
}

/// Two numbers rounded to nearest.
MLXN_HALF_FN std::uint32_t h2_of(float low, float high) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
#else
  return host::pair(static_cast<double>(low), static_cast<double>(high));
#endif
}
/// A half's bits as a number.
MLXN_HALF_FN float half_to_float(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(static_cast<std::uint16_t>(bits)));
  return v;
#else
  return static_cast<float>(host::value_of(bits & 0xFFFF));
#endif
}
MLXN_HALF_FN float float_of_bits(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
#endif
}
/// 1 / a to a few bits, infinity of zero; a is normal or zero.
MLXN_HALF_FN float fast_reciprocal(float a) {
#if defined(__CUDA_ARCH__)
  float v;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(a));
  return v;
#else
  return 1.0f / a;
#endif
}
/// Pairs of signed 16-bit numbers: a + b, or 0 where that is negative.
MLXN_HALF_FN std::uint32_t s2_add_above_zero(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("{\n .reg .b32 s;\n add.s16x2 s, %1, %2;\n max.s16x2 %0, s, %3;\n}" : "=r"(d) : "r"(a), "r"(b), "r"(0));
  return d;
#else
  const auto one = [](std::uint32_t sum) { return (sum & 0x8000u) != 0 ? 0u : sum & 0x7FFFu; };
  return one(a + b) | one((a >> 16) + (b >> 16)) << 16;
#endif
}
/// Bytes 0..7 of b:a by the four nibbles of the selector, none above 7.
MLXN_HALF_FN std::uint32_t permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
#if defined(__CUDA_ARCH__)
  std::uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
#else
  const std::uint64_t bytes = a | static_cast<std::uint64_t>(b) << 32;
  std::uint32_t d = 0;
  for (int i = 0; i < 4; ++i)
    d |= static_cast<std::uint32_t>(bytes >> (8 * (selector >> 4 * i & 7)) & 255) << 8 * i;
  return d;
#endif
}

#undef MLXN_HALF_FN

}  // namespace mlxn::sm90
