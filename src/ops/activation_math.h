#pragma once

#include <cstdint>

#include "ops/simd_math.h"

namespace mlxn::ops {

/// f32 functions on the lanes of S (a Simd<width>) for results that every instruction set gives alike, bit for bit: unlike
/// exp() of simd_math.h they use no fused multiply-add, which the baseline does not have.
template <class S>
struct Activation {
  using F = typename S::F;
  using I = typename S::I;

  /// e^x for x <= 0, within 2e-7 relative. Below -87.3, where the result leaves the normal numbers, 0. NaN gives NaN.
  static MLXN_SIMD F exp_nonpositive(F x) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits; ln 2 is split so that n times its upper part is exact.
    constexpr float kMagic = 0x1.8p23f;
    const F shifted = x * 1.44269504f + kMagic;
    const F n = shifted - kMagic;
    const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    // (e^r - 1 - r) / r^2, interpolated at the Chebyshev nodes of |r| <= ln 2 / 2: the error of e^r is below 8e-10.
    F p = r * 0.000198911803f + 0.00139338209f;
    p = p * r + 0.00833331048f;
    p = p * r + 0.041666463f;
    p = p * r + 0.166666672f;
    p = p * r + 0.5f;
    const F mantissa = (p * (r * r) + r) + 1.0f;
    const I power = (S::bits(shifted) - (0x4B400000 - 127)) << 23;
    const I underflow = x < -87.3f;
    return S::from_bits(S::bits(mantissa * S::from_bits(power)) & ~underflow);
  }

  /// x / (1 + e^-z) for an x of z's sign. Working with e^-|z| keeps the quotient exact down to the normal numbers' end.
  static MLXN_SIMD F times_sigmoid(F x, F z) {
    const F e = exp_nonpositive(-S::abs(z));
    const I negative = z < 0.0f;
    return S::select(negative, x * e, x) / (1.0f + e);
  }

  /// Within 4e-7 relative; NaN stays.
  static MLXN_SIMD F tanh(F x) {
    const F a = S::abs(x);
    // Near 0 a polynomial in x^2 (the one of Cephes' tanhf), elsewhere (1 - e^-2|x|) / (1 + e^-2|x|).
    const F z = x * x;
    F p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const F small = p * z * x + x;
    const F e = exp_nonpositive(-2.0f * a);
    const F far = (1.0f - e) / (1.0f + e);
    const I sign = S::bits(x) & static_cast<std::int32_t>(0x80000000u);
    return S::select(a < 0.625f, small, S::from_bits(S::bits(far) | sign));
  }
};

}  // namespace mlxn::ops
