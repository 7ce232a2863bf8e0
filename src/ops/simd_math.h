#pragma once

// Vectors of f32 of one width, on the compilers' vector extensions, and functions of them with a stated accuracy.
//
// Simd<4> is plain code of the baseline, Simd<8> is AVX2 with FMA and F16C, Simd<16> is AVX-512, Neon is what its name says.
// A kernel body is a template over one of them and is instantiated in the file of that instruction set only; the type is
// part of every mangled name, and everything here is inlined always, so no copy for one set can be linked into the code of
// another.

#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "simd/inline.h"

namespace mlxn::ops {

/// f32, i32, u16 and f64 vectors of a width. Spelt out because GCC 12 drops a vector_size that depends on a template.
template <int kWidth>
struct VectorTypes;
#define MLXN_VECTOR_TYPES(width)                                     \
  template <>                                                        \
  struct VectorTypes<width> {                                        \
    typedef float F __attribute__((vector_size(4 * width)));         \
    typedef std::int32_t I __attribute__((vector_size(4 * width)));  \
    typedef std::uint16_t H __attribute__((vector_size(2 * width))); \
    typedef double D __attribute__((vector_size(8 * width)));        \
  };
MLXN_VECTOR_TYPES(4)
MLXN_VECTOR_TYPES(8)
MLXN_VECTOR_TYPES(16)
#undef MLXN_VECTOR_TYPES

/// The parts that all widths share. Loads and stores need no alignment.
template <int kWidth>
struct SimdBase {
  static constexpr int kLanes = kWidth;
  static constexpr int kRegisters = 16;  ///< vectors that the instruction set has names for
  using F = typename VectorTypes<kWidth>::F;
  using I = typename VectorTypes<kWidth>::I;
  using H = typename VectorTypes<kWidth>::H;
  using D = typename VectorTypes<kWidth>::D;

  static MLXN_SIMD F load(const float* p) {
    F v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static MLXN_SIMD void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
  static MLXN_SIMD F set(float x) { return x - F{}; }
  static MLXN_SIMD I set_int(std::int32_t x) { return x - I{}; }
  static MLXN_SIMD F zero() { return F{}; }
  /// 0, 1, 2, ...
  static MLXN_SIMD I iota() {
    I v;
    for (int i = 0; i < kWidth; ++i) v[i] = i;
    return v;
  }
  static MLXN_SIMD F select(I mask, F a, F b) { return mask ? a : b; }
  static MLXN_SIMD I bits(F v) { return reinterpret_cast<I>(v); }
  static MLXN_SIMD F from_bits(I v) { return reinterpret_cast<F>(v); }
  static MLXN_SIMD F to_float(I v) { return __builtin_convertvector(v, F); }
  static MLXN_SIMD F abs(F v) { return from_bits(bits(v) & 0x7FFFFFFF); }
  /// bf16 to f32.
  static MLXN_SIMD F load_bf16(const std::uint16_t* p) {
    H h;
    __builtin_memcpy(&h, p, sizeof h);
    return from_bits(__builtin_convertvector(h, I) << 16);
  }
  /// f32 to bf16, nearest even; a NaN stays one and becomes quiet.
  static MLXN_SIMD void store_bf16(std::uint16_t* p, F v) {
    const I b = bits(v);
    const I rounded = b + 0x7FFF + ((b >> 16) & 1);
    const I kept = v != v ? b | 0x400000 : rounded;
    const H h = __builtin_convertvector((kept >> 16) & 0xFFFF, H);
    __builtin_memcpy(p, &h, sizeof h);
  }
};

template <int kWidth>
struct Simd;

/// f16 to f32 and back without instructions for it; nearest even, NaN to 0x7E00 as the type f16 does.
MLXN_SIMD float f16_bits_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t magnitude = h & 0x7FFFu;
  float out;
  if (magnitude >= 0x7C00u) {
    const std::uint32_t b = sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13);
    __builtin_memcpy(&out, &b, 4);
    return out;
  }
  const std::uint32_t b = magnitude << 13;  // the exponent is 112 too small: a product with 2^112 sets it and is exact
  float scaled;
  __builtin_memcpy(&scaled, &b, 4);
  scaled *= 0x1p112f;
  std::uint32_t o;
  __builtin_memcpy(&o, &scaled, 4);
  o |= sign;
  __builtin_memcpy(&out, &o, 4);
  return out;
}
MLXN_SIMD std::uint16_t float_to_f16_bits(float x) {
  std::uint32_t b;
  __builtin_memcpy(&b, &x, 4);
  const std::uint32_t sign = (b >> 16) & 0x8000u;
  b &= 0x7FFFFFFFu;
  if (b > 0x7F800000u) return 0x7E00u;
  if (b >= 0x477FF000u) return static_cast<std::uint16_t>(sign | 0x7C00u);  // 65520 and up
  if (b < 0x38800000u) {  // below 2^-14: adding 2^-1 leaves the subnormal's bits, rounded, at the bottom
    float m;
    __builtin_memcpy(&m, &b, 4);
    m += 0.5f;
    __builtin_memcpy(&b, &m, 4);
    return static_cast<std::uint16_t>(sign | (b - 0x3F000000u));
  }
  b += 0xFFFu + ((b >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((b - 0x38000000u) >> 13));
}

template <>
struct Simd<4> : SimdBase<4> {
  /// a * b + c; rounded twice in this width, once in the others.
  static MLXN_SIMD F fma(F a, F b, F c) { return a * b + c; }
  /// The larger; b where one of them is NaN.
  static MLXN_SIMD F max(F a, F b) { return a > b ? a : b; }
  static MLXN_SIMD float sum_lanes(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static MLXN_SIMD float max_lane(F v) {
    const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
  }
  /// The sums of four vectors, each formed as sum_lanes forms it.
  static MLXN_SIMD F sum_lanes4(F a, F b, F c, F d) {
    const F ab = __builtin_shuffle(a, b, I{0, 4, 1, 5}) + __builtin_shuffle(a, b, I{2, 6, 3, 7});
    const F cd = __builtin_shuffle(c, d, I{0, 4, 1, 5}) + __builtin_shuffle(c, d, I{2, 6, 3, 7});
    return __builtin_shuffle(ab, cd, I{0, 1, 4, 5}) + __builtin_shuffle(ab, cd, I{2, 3, 6, 7});
  }
  static MLXN_SIMD F load_f16(const std::uint16_t* p) {
    return F{f16_bits_to_float(p[0]), f16_bits_to_float(p[1]), f16_bits_to_float(p[2]), f16_bits_to_float(p[3])};
  }
  static MLXN_SIMD void store_f16(std::uint16_t* p, F v) {
    for (int i = 0; i < 4; ++i) p[i] = float_to_f16_bits(v[i]);
  }
};

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
template <>
struct Simd<8> : SimdBase<8> {
  static MLXN_SIMD F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static MLXN_SIMD F max(F a, F b) { return _mm256_max_ps(a, b); }
  static MLXN_SIMD float sum_lanes(F v) {
    const __m256 a = v;
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static MLXN_SIMD float max_lane(F v) {
    const __m256 a = v;
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
  static MLXN_SIMD Simd<4>::F sum_lanes4(F a, F b, F c, F d) {
    return Simd<4>::sum_lanes4(fold(a), fold(b), fold(c), fold(d));
  }
  static MLXN_SIMD F load_f16(const std::uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static MLXN_SIMD void store_f16(std::uint16_t* p, F v) {
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(nan), _mm256_extracti128_si256(nan, 1));
    const __m128i h = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_blendv_epi8(h, _mm_set1_epi16(0x7E00), words));
  }

 private:
  static MLXN_SIMD Simd<4>::F fold(__m256 v) { return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
struct Simd<16> : SimdBase<16> {
  static constexpr int kRegisters = 32;
  static MLXN_SIMD F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static MLXN_SIMD F max(F a, F b) { return _mm512_mask_max_ps(a, 0xFFFF, a, b); }
  static MLXN_SIMD float sum_lanes(F v) {
    return Simd<8>::sum_lanes(_mm256_add_ps(low(v), high(v)));
  }
  static MLXN_SIMD float max_lane(F v) {
    return Simd<8>::max_lane(_mm256_max_ps(low(v), high(v)));
  }
  static MLXN_SIMD Simd<4>::F sum_lanes4(F a, F b, F c, F d) {
    return Simd<8>::sum_lanes4(_mm256_add_ps(low(a), high(a)), _mm256_add_ps(low(b), high(b)), _mm256_add_ps(low(c), high(c)),
                               _mm256_add_ps(low(d), high(d)));
  }
  static MLXN_SIMD F load_f16(const std::uint16_t* p) {
    return _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static MLXN_SIMD void store_f16(std::uint16_t* p, F v) {
    const __m256i h = _mm512_maskz_cvtps_ph(0xFFFF, v, _MM_FROUND_TO_NEAREST_INT);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_mask_blend_epi16(nan, h, _mm256_set1_epi16(0x7E00)));
  }

 private:
  static MLXN_SIMD __m256 low(F v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
  static MLXN_SIMD __m256 high(F v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
};
#endif

#if defined(__aarch64__)
/// Four lanes, as Simd<4>, but with fused products and conversions of halves.
struct Neon : SimdBase<4> {
  static constexpr int kRegisters = 32;
  static MLXN_SIMD F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static MLXN_SIMD F max(F a, F b) { return a > b ? a : b; }  // vmaxq_f32 would keep a NaN of a
  static MLXN_SIMD float sum_lanes(F v) { return vaddvq_f32(v); }
  static MLXN_SIMD float max_lane(F v) { return vmaxnmvq_f32(v); }
  static MLXN_SIMD F sum_lanes4(F a, F b, F c, F d) { return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)); }
  static MLXN_SIMD F load_f16(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static MLXN_SIMD void store_f16(std::uint16_t* p, F v) {
    const uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(v));
    vst1_u16(p, vbsl_u16(vmovn_u32(vceqq_f32(v, v)), h, vdup_n_u16(0x7E00)));
  }
};
#endif

/// The first n < kLanes elements, the others 0; touches nothing beyond them.
template <class S, class T>
MLXN_SIMD typename S::F load_first(const T* p, int n);

/// exp(x) within 2 ulp, down to the smallest subnormal; exp(-inf) = 0, exp(inf) = inf, NaN stays.
template <class S>
MLXN_SIMD typename S::F exp(typename S::F x) {
  using F = typename S::F;
  using I = typename S::I;
  // x = n ln 2 + r with |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an integer, which is then read from the low bits.
  constexpr float kRound = 0x1.8p23f;
  const F low = S::set(-105.0f), high = S::set(89.0f);
  const F clamped = x < low ? low : (x > high ? high : x);  // a NaN passes
  const F shifted = S::fma(clamped, S::set(0x1.715476p0f), S::set(kRound));
  const F n = shifted - kRound;
  F r = S::fma(n, S::set(-0x1.62e400p-1f), clamped);  // 17 leading bits of ln 2: the product is exact
  r = S::fma(n, S::set(-0x1.7f7d1cp-20f), r);
  F p = S::fma(S::set(0x1.a01a02p-13f), r, S::set(0x1.6c16c2p-10f));
  p = S::fma(p, r, S::set(0x1.111112p-7f));
  p = S::fma(p, r, S::set(0x1.555556p-5f));
  p = S::fma(p, r, S::set(0x1.555556p-3f));
  p = S::fma(p, r, S::set(0.5f));
  p = S::fma(p * r, r, r) + 1.0f;
  // 2^n in two factors, each a normal number.
  const I k = S::bits(shifted) - S::bits(S::set(kRound));
  const I k0 = k >> 1;
  return p * S::from_bits((k0 + 127) << 23) * S::from_bits((k - k0 + 127) << 23);
}

/// tanh(x) within 3 ulp; NaN stays.
template <class S>
MLXN_SIMD typename S::F tanh(typename S::F x) {
  using F = typename S::F;
  const F a = S::abs(x);
  // Near 0 a polynomial in x^2 (the one of Cephes' tanhf), elsewhere 1 - 2 / (exp(2 |x|) + 1), which loses nothing there.
  const F z = x * x;
  F p = S::fma(S::set(-5.70498872745e-3f), z, S::set(2.06390887954e-2f));
  p = S::fma(p, z, S::set(-5.37397155531e-2f));
  p = S::fma(p, z, S::set(1.33314422036e-1f));
  p = S::fma(p, z, S::set(-3.33332819422e-1f));
  const F small = S::fma(p * z, x, x);
  const F far = 1.0f - 2.0f / (exp<S>(a + a) + 1.0f);
  const F large = S::from_bits(S::bits(far) | (S::bits(x) & static_cast<std::int32_t>(0x80000000u)));
  return S::select(a < S::set(0.625f), small, large);
}

template <class S, class T>
MLXN_SIMD typename S::F load_first(const T* p, int n) {
  T part[S::kLanes] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  if constexpr (sizeof(T) == 4) {
    return S::load(part);
  } else {
    return S::load_f16(part);
  }
}

}  // namespace mlxn::ops
