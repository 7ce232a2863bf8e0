#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd/inline.h"

namespace mlxn::simd {

/// Eight lanes of 32 bits: AVX2, FMA, F16C. The members are those of Avx512.
struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr int kMaxTile = 4;
  static constexpr int kExactTile = 2;
  static constexpr int kSlabColumns = 1;
  static constexpr bool kSettled = false;
  static constexpr bool kProductsByLane = false;
  static constexpr bool kUnrolled = true;
  static constexpr bool kUnpackFirst = true;
  static constexpr bool kSignedBytes = true;
  static constexpr bool kFloatTables = false;
  static constexpr bool kAsksAhead = true;
  static constexpr bool kGroupsTogether = false;
  using F = __m256;
  using I = __m256i;

  static MLXN_SIMD I load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static MLXN_SIMD void store(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  static MLXN_SIMD F load_f32(const float* p) { return _mm256_loadu_ps(p); }
  static MLXN_SIMD void store_f32(float* p, F v) { _mm256_storeu_ps(p, v); }
  static MLXN_SIMD I zero() { return _mm256_setzero_si256(); }
  static MLXN_SIMD I set(std::int32_t v) { return _mm256_set1_epi32(v); }
  static MLXN_SIMD F set_f32(float v) { return _mm256_set1_ps(v); }

  static MLXN_SIMD I and_(I a, I b) { return _mm256_and_si256(a, b); }
  static MLXN_SIMD I or_(I a, I b) { return _mm256_or_si256(a, b); }
  static MLXN_SIMD I xor_(I a, I b) { return _mm256_xor_si256(a, b); }
  static MLXN_SIMD I shr(I a, int n) { return _mm256_srli_epi32(a, n); }
  static MLXN_SIMD I shl(I a, int n) { return _mm256_slli_epi32(a, n); }
  static MLXN_SIMD I sar(I a, int n) { return _mm256_srai_epi32(a, n); }
  static MLXN_SIMD I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
  static MLXN_SIMD I sub_bytes(I a, I b) { return _mm256_sub_epi8(a, b); }

  static MLXN_SIMD F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static MLXN_SIMD F add(F a, F b) { return _mm256_add_ps(a, b); }
  static MLXN_SIMD F div(F a, F b) { return _mm256_div_ps(a, b); }
  static MLXN_SIMD F max(F a, F b) { return _mm256_max_ps(a, b); }
  static MLXN_SIMD F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static MLXN_SIMD F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static MLXN_SIMD F to_f32(I a) { return _mm256_cvtepi32_ps(a); }
  static MLXN_SIMD F as_f32(I a) { return _mm256_castsi256_ps(a); }
  static MLXN_SIMD I as_int(F a) { return _mm256_castps_si256(a); }
  static MLXN_SIMD float max_lane(F a) {
    __m128 v = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
  }
  static MLXN_SIMD float sum_lanes(F a) {
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
  }

  static MLXN_SIMD F load_f16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
  static MLXN_SIMD F load_bf16(const void* p) {
    return as_f32(shl(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))), 16));
  }
  static MLXN_SIMD I load_bytes(const void* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  }
  static MLXN_SIMD F f16_low(I a) {
    const I words = _mm256_and_si256(a, set(0xFFFF));
    const I packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
  }
  static MLXN_SIMD F round_f16(F a) { return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)); }
  static MLXN_SIMD void store_f16(void* p, F a) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
  static MLXN_SIMD I store_rounded_bytes(std::int8_t* p, F a) {
    const I q = _mm256_max_epi32(_mm256_min_epi32(_mm256_cvtps_epi32(a), set(127)), set(-127));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
    return q;
  }

  static MLXN_SIMD I lookup(const std::int8_t* table, I index) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), index);
  }
  static MLXN_SIMD I byte_on_top(I v, int b) {
    const long long one = static_cast<long long>(b) << 24 | 0x808080, two = one | (one + (4 << 24)) << 32;
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_set_epi64x(two + 0x0800000008000000, two)));
  }
  static MLXN_SIMD I spread_bits(I bits, int j) {
    const I spread = _mm256_shuffle_epi8(bits, _mm256_add_epi8(_mm256_setr_epi64x(0x0404040400000000, 0x0C0C0C0C08080808,
                                                                                  0x0404040400000000, 0x0C0C0C0C08080808),
                                                               _mm256_set1_epi8(static_cast<char>(j / 2))));
    const I mask = _mm256_set1_epi32(static_cast<int>(0x08040201u << (4 * (j % 2))));
    return _mm256_cmpeq_epi8(_mm256_and_si256(spread, mask), mask);
  }

  /// Sums of pairs stay below 2^15 because kMaxCode * 127 * 2 is added at most `kRun` times before widening.
  template <int kVectors, int kMaxCode>
  static MLXN_SIMD I dot_unsigned(I acc, const I* w, const std::int8_t* x) {
    constexpr int kRun = 32767 / (kMaxCode * 254);
    static_assert(kRun >= 1, "products of these codes saturate 16 bits");
    I sum = zero();
    MLXN_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const I product = _mm256_maddubs_epi16(w[i], quad(x + 4 * i));
      sum = i % kRun == 0 ? product : _mm256_add_epi16(sum, product);
      if (i % kRun == kRun - 1 || i == kVectors - 1) {
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
      }
    }
    return acc;
  }
  /// The same with weights -128 .. 127: |w| times x with w's sign, which reaches 128 * 127 * 2 < 2^15.
  template <int kVectors>
  static MLXN_SIMD I dot_signed(I acc, const I* w, const std::int8_t* x) {
    MLXN_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const I product = _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(quad(x + 4 * i), w[i]));
      acc = _mm256_add_epi32(acc, _mm256_madd_epi16(product, _mm256_set1_epi16(1)));
    }
    return acc;
  }

  template <class Place>
  static MLXN_SIMD void transpose4(const std::uint8_t* const* rows, std::int64_t offset, Place&& place) {
    MLXN_UNROLL
    for (int half = 0; half < 2; ++half) {
      I v[4];
      MLXN_UNROLL
      for (int i = 0; i < 4; ++i) {
        const auto row = [&](int r) {
          return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[8 * half + r] + offset));
        };
        v[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(row(i)), row(i + 4), 1);
      }
      const I a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
      const I c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
      store(place(0) + 32 * half, _mm256_unpacklo_epi64(a, c));
      store(place(1) + 32 * half, _mm256_unpackhi_epi64(a, c));
      store(place(2) + 32 * half, _mm256_unpacklo_epi64(b, d));
      store(place(3) + 32 * half, _mm256_unpackhi_epi64(b, d));
    }
  }

 private:
  static MLXN_SIMD I quad(const std::int8_t* x) {
    std::int32_t v;
    __builtin_memcpy(&v, x, 4);
    return _mm256_set1_epi32(v);
  }
};

}  // namespace mlxn::simd
