#pragma once

#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// frequency / 2 pi, the part after the point, in units of 2^-64 turns. |frequency| <= 2^16.
///
/// frequency is m 2^e with a 24-bit m. 1 / 2 pi is held as c = 96 bits after the point, less than 2^-96 too small, and m c is
/// formed exactly in 120 bits; then bits below 2^-64 are cut. Both leave the result less than 2^-64 + 2^16 2^-96 too small.
MLXN_FN uint64_t turns_per_step(float frequency) {
  constexpr uint32_t c2 = 0x28be60dbu, c1 = 0x9391054au, c0 = 0x7f09d5f4u;
  const uint32_t bits = float_bits(frequency), exponent = bits >> 23 & 0xffu;
  const uint32_t m = (bits & 0x7fffffu) | (exponent != 0 ? 0x800000u : 0u);
  // The value of m c in units of 2^-96 2^e, where e = max(exponent, 1) - 150; in units of 2^-64 it is that, shifted right by
  // 32 - e, which is at least 39.
  const uint32_t shift = 182u - (exponent != 0 ? exponent : 1u);
  const uint64_t p0 = uint64_t(m) * c0, p1 = uint64_t(m) * c1 + (p0 >> 32), p2 = uint64_t(m) * c2 + (p1 >> 32);
  const uint64_t low = p1 << 32 | (p0 & 0xffffffffu), high = p2;
  uint64_t turns = 0;
  if (shift < 64) {
    turns = high << (64 - shift) | low >> shift;
  } else if (shift < 128) {
    turns = high >> (shift - 64);
  }
  return bits >> 31 != 0 ? ~turns + 1 : turns;
}

struct SineCosine {
  float sine, cosine;
};

/// Sine and cosine of position * frequency, for every position and |frequency| <= 2^16.
///
/// A whole number of turns falls out of a product of integers modulo 2^64, so nothing is lost to the size of the angle: the
/// phase is within |position| (2^-64 + 2^-80) turns, which is below 7.4e-10 radians. What is left, |r| <= pi / 4, becomes the
/// sum of two f32 within 2^-46 of itself. Sine and cosine of the first one are Cephes' polynomials, within 3e-8; the second one,
/// below 2^-25, enters by the first derivative, whose error is below 2^-50. Of the roundings the last one is at most 2^-25, as
/// is that of 1 - z / 2, and that of z halves to 2^-26; the others are below 1e-8 together. So both are within 1.2e-7.
MLXN_FN SineCosine sine_cosine(int32_t position, float frequency) {
  const uint64_t phase = uint64_t(int64_t(position)) * turns_per_step(frequency);
  const uint64_t quadrant = (phase + (uint64_t(1) << 61)) >> 62;  // to nearest; 4 is 0
  const int64_t rest = int64_t(phase - (quadrant << 62));
  // 2 pi 2^-64 in two parts; rest in two parts as well.
  constexpr float kUpper = 0x1.921fb6p-62f, kLower = -0x1.777a5cp-87f;
  const float upper = float(rest), lower = float(rest - int64_t(upper));
  const float r = mul_rn(upper, kUpper);
  const float below = fma(upper, kUpper, -r) + fma(upper, kLower, lower * kUpper);
  const float z = r * r;
  const float s = fma(r * z, fma(z, fma(z, -1.9515295891e-4f, 8.3321608736e-3f), -1.6666654611e-1f),
                      fma(below, fma(z, -0.5f, 1.0f), r));
  const float c = fma(z * z, fma(z, fma(z, 2.443315711809948e-5f, -1.388731625493765e-3f), 4.166664568298827e-2f),
                      fma(-below, r, fma(z, -0.5f, 1.0f)));
  const bool swap = (quadrant & 1) != 0;
  SineCosine result;
  result.sine = (quadrant & 2) != 0 ? -(swap ? c : s) : (swap ? c : s);
  result.cosine = ((quadrant + 1) & 2) != 0 ? -(swap ? s : c) : (swap ? s : c);
  return result;
}

}  // namespace gpu
}  // namespace mlxn
