#pragma once

// GCC 12 warns of its own deliberately undefined operands (GCC bug 105593).
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "simd/inline.h"

namespace mlxn::simd {

/// Sixteen lanes of 32 bits: AVX-512 F, BW, DQ, VL, VNNI, VBMI. A lane of I also holds four bytes.
struct Avx512 {
  static constexpr int kLanes = 16;
  static constexpr int kMaxTile = 8;           ///< rows of x that a kernel keeps in registers
  static constexpr int kExactTile = 4;         ///< the same for kernels that unpack to floats
  static constexpr int kSlabColumns = 1;       ///< vectors of columns that a kernel for slabs of floats takes together
  static constexpr bool kSettled = false;      ///< whether straight code wants MLXN_SETTLE between its parts
  static constexpr bool kProductsByLane = false;  ///< has fma_by_lane()
  static constexpr bool kUnrolled = true;      ///< whether long loops over constants become straight code
  static constexpr bool kUnpackFirst = false;  ///< whether codes that are slow to unpack are unpacked once for many tiles
  static constexpr bool kSignedBytes = false;  ///< the dot product takes unsigned weights only
  static constexpr bool kFloatTables = true;   ///< table() looks up floats
  static constexpr bool kAsksAhead = true;     ///< has kernels that ask for weights ahead, for processors that want it
  static constexpr bool kGroupsTogether = true;  ///< has registers and dot products to sum several groups side by side
  using F = __m512;
  using I = __m512i;

  static MLXN_SIMD I load(const void* p) { return _mm512_loadu_si512(p); }
  static MLXN_SIMD void store(void* p, I v) { _mm512_storeu_si512(p, v); }
  static MLXN_SIMD F load_f32(const float* p) { return _mm512_loadu_ps(p); }
  static MLXN_SIMD void store_f32(float* p, F v) { _mm512_storeu_ps(p, v); }
  static MLXN_SIMD I zero() { return _mm512_setzero_si512(); }
  static MLXN_SIMD I set(std::int32_t v) { return _mm512_set1_epi32(v); }
  static MLXN_SIMD F set_f32(float v) { return _mm512_set1_ps(v); }

  static MLXN_SIMD I and_(I a, I b) { return _mm512_and_si512(a, b); }
  static MLXN_SIMD I or_(I a, I b) { return _mm512_or_si512(a, b); }
  static MLXN_SIMD I xor_(I a, I b) { return _mm512_xor_si512(a, b); }
  static MLXN_SIMD I shr(I a, int n) { return _mm512_srli_epi32(a, static_cast<unsigned>(n)); }
  static MLXN_SIMD I shl(I a, int n) { return _mm512_slli_epi32(a, static_cast<unsigned>(n)); }
  static MLXN_SIMD I sar(I a, int n) { return _mm512_srai_epi32(a, static_cast<unsigned>(n)); }
  static MLXN_SIMD I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static MLXN_SIMD I sub_bytes(I a, I b) { return _mm512_sub_epi8(a, b); }

  static MLXN_SIMD F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static MLXN_SIMD F add(F a, F b) { return _mm512_add_ps(a, b); }
  static MLXN_SIMD F div(F a, F b) { return _mm512_div_ps(a, b); }
  static MLXN_SIMD F max(F a, F b) { return _mm512_max_ps(a, b); }
  static MLXN_SIMD F abs(F a) { return _mm512_abs_ps(a); }
  /// a * b + c
  static MLXN_SIMD F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static MLXN_SIMD F to_f32(I a) { return _mm512_cvtepi32_ps(a); }
  static MLXN_SIMD F as_f32(I a) { return _mm512_castsi512_ps(a); }
  static MLXN_SIMD I as_int(F a) { return _mm512_castps_si512(a); }
  static MLXN_SIMD float max_lane(F a) { return _mm512_reduce_max_ps(a); }
  static MLXN_SIMD float sum_lanes(F a) { return _mm512_reduce_add_ps(a); }

  /// Halves at p, one a lane.
  static MLXN_SIMD F load_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  /// Upper halves of floats at p, one a lane.
  static MLXN_SIMD F load_bf16(const void* p) {
    return as_f32(shl(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p))), 16));
  }
  /// Bytes at p, one a lane, zero extended.
  static MLXN_SIMD I load_bytes(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  /// The half in the lower 16 bits of every lane; shift a lane right by 16 for the upper one.
  static MLXN_SIMD F f16_low(I a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }
  /// To the nearest half and back.
  static MLXN_SIMD F round_f16(F a) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static MLXN_SIMD void store_f16(void* p, F a) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  /// Rounds to nearest even, clamps to -127 .. 127 and stores one byte a lane. Returns what it stored.
  static MLXN_SIMD I store_rounded_bytes(std::int8_t* p, F a) {
    const I q = _mm512_max_epi32(_mm512_min_epi32(_mm512_cvtps_epi32(a), set(127)), set(-127));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(q));
    return q;
  }

  /// Every byte of `index` (0 .. 15) replaced by table[index].
  static MLXN_SIMD I lookup(const std::int8_t* table, I index) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), index);
  }
  struct Table {
    F low, high;
  };
  static MLXN_SIMD Table load_table(const float* t) { return {load_f32(t), load_f32(t + 16)}; }
  /// table[low bits of the lane]: four bits for tables of 16, five for 32.
  template <int kEntries>
  static MLXN_SIMD F table(const Table& t, I index) {
    if constexpr (kEntries == 16) return _mm512_permutexvar_ps(index, t.low);
    else return _mm512_permutex2var_ps(t.low, index, t.high);
  }
  /// Byte b of every lane as its highest byte, zeros below.
  static MLXN_SIMD I byte_on_top(I v, int b) {
    const long long one = static_cast<long long>(b) << 24 | 0x808080, two = one | (one + (4 << 24)) << 32;
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_set_epi64x(two + 0x0800000008000000, two)));
  }
  /// Bits 4j .. 4j+3 of every lane, each to bit 4 of its own byte; the other bits are undefined.
  static MLXN_SIMD I spread_bits(I bits, int j) {
    const auto at = [j](int b) { return static_cast<long long>((4 * j + b - 4) & 63) << (8 * (b % 4 + (b / 32) * 4)); };
    const long long control = at(0) | at(1) | at(2) | at(3) | at(32) | at(33) | at(34) | at(35);
    return _mm512_multishift_epi64_epi8(_mm512_set1_epi64(control), bits);
  }

  /// acc + sum over i < kVectors of four-byte dot products: weights 0 .. 255 in w[i], activations x[4i .. 4i+3].
  template <int kVectors, int kMaxCode>
  static MLXN_SIMD I dot_unsigned(I acc, const I* w, const std::int8_t* x) {
    MLXN_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      // One instruction that fetches and spreads x; compilers make two of the intrinsics.
      const auto& quad = *reinterpret_cast<const std::int8_t(*)[4]>(x + 4 * i);
      __asm__("vpdpbusd {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(acc) : "v"(w[i]), "m"(quad));
    }
    return acc;
  }

  /// Transposes 4 dwords of 16 rows: dword j at rows[r] + offset goes to lane r of the 64 bytes at place(j).
  template <class Place>
  static MLXN_SIMD void transpose4(const std::uint8_t* const* rows, std::int64_t offset, Place&& place) {
    __m512i v[4];
    MLXN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const auto row = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + offset)); };
      v[i] = _mm512_castsi128_si512(row(i));
      v[i] = _mm512_inserti32x4(v[i], row(i + 4), 1);
      v[i] = _mm512_inserti32x4(v[i], row(i + 8), 2);
      v[i] = _mm512_inserti32x4(v[i], row(i + 12), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    store(place(0), _mm512_unpacklo_epi64(a, c));
    store(place(1), _mm512_unpackhi_epi64(a, c));
    store(place(2), _mm512_unpacklo_epi64(b, d));
    store(place(3), _mm512_unpackhi_epi64(b, d));
  }
};

}  // namespace mlxn::simd
