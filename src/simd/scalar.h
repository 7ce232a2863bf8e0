#pragma once

#include <cstdint>

#include "simd/inline.h"

namespace mlxn::simd {

/// Four lanes of 32 bits in the compilers' own vectors: runs on every machine. The members are those of Avx512.
struct Scalar {
  static constexpr int kLanes = 4;
  static constexpr int kMaxTile = 2;
  static constexpr int kExactTile = 2;
  static constexpr int kSlabColumns = 1;
  static constexpr bool kSettled = false;
  static constexpr bool kProductsByLane = false;
  static constexpr bool kUnrolled = false;
  static constexpr bool kUnpackFirst = false;
  static constexpr bool kSignedBytes = true;
  static constexpr bool kFloatTables = false;
  static constexpr bool kAsksAhead = false;
  static constexpr bool kGroupsTogether = false;
  typedef float F __attribute__((vector_size(16)));
  typedef std::int32_t I __attribute__((vector_size(16)));
  typedef std::uint32_t U __attribute__((vector_size(16)));
  typedef std::uint8_t B __attribute__((vector_size(16)));

  static MLXN_SIMD I load(const void* p) { return get<I>(p); }
  static MLXN_SIMD void store(void* p, I v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static MLXN_SIMD F load_f32(const float* p) { return get<F>(p); }
  static MLXN_SIMD void store_f32(float* p, F v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static MLXN_SIMD I zero() { return I{}; }
  static MLXN_SIMD I set(std::int32_t v) { return I{v, v, v, v}; }
  static MLXN_SIMD F set_f32(float v) { return F{v, v, v, v}; }

  static MLXN_SIMD I and_(I a, I b) { return a & b; }
  static MLXN_SIMD I or_(I a, I b) { return a | b; }
  static MLXN_SIMD I xor_(I a, I b) { return a ^ b; }
  static MLXN_SIMD I shr(I a, int n) { return reinterpret_cast<I>(reinterpret_cast<U>(a) >> static_cast<unsigned>(n)); }
  static MLXN_SIMD I shl(I a, int n) { return reinterpret_cast<I>(reinterpret_cast<U>(a) << static_cast<unsigned>(n)); }
  static MLXN_SIMD I sar(I a, int n) { return a >> n; }
  static MLXN_SIMD I add_int(I a, I b) { return a + b; }
  static MLXN_SIMD I sub_bytes(I a, I b) { return reinterpret_cast<I>(reinterpret_cast<B>(a) - reinterpret_cast<B>(b)); }

  static MLXN_SIMD F mul(F a, F b) { return a * b; }
  static MLXN_SIMD F add(F a, F b) { return a + b; }
  static MLXN_SIMD F div(F a, F b) { return a / b; }
  static MLXN_SIMD F max(F a, F b) {
    const I take = a > b;
    return as_f32((as_int(a) & take) | (as_int(b) & ~take));
  }
  static MLXN_SIMD F abs(F a) { return as_f32(as_int(a) & 0x7FFFFFFF); }
  static MLXN_SIMD F fma(F a, F b, F c) { return a * b + c; }
  static MLXN_SIMD F to_f32(I a) { return __builtin_convertvector(a, F); }
  static MLXN_SIMD F as_f32(I a) { return reinterpret_cast<F>(a); }
  static MLXN_SIMD I as_int(F a) { return reinterpret_cast<I>(a); }
  static MLXN_SIMD float max_lane(F a) {
    const float low = a[0] > a[1] ? a[0] : a[1], high = a[2] > a[3] ? a[2] : a[3];
    return low > high ? low : high;
  }
  static MLXN_SIMD float sum_lanes(F a) { return (a[0] + a[1]) + (a[2] + a[3]); }

  static MLXN_SIMD F load_f16(const void* p) {
    std::uint16_t h[4];
    __builtin_memcpy(h, p, sizeof(h));
    return f16_low(I{h[0], h[1], h[2], h[3]});
  }
  static MLXN_SIMD F load_bf16(const void* p) {
    std::uint16_t h[4];
    __builtin_memcpy(h, p, sizeof(h));
    return as_f32(shl(I{h[0], h[1], h[2], h[3]}, 16));
  }
  static MLXN_SIMD I load_bytes(const void* p) {
    std::uint8_t b[4];
    __builtin_memcpy(b, p, sizeof(b));
    return I{b[0], b[1], b[2], b[3]};
  }
  /// Moves exponent and mantissa into place, then corrects the exponent by a product that is exact for subnormals too.
  static MLXN_SIMD F f16_low(I a) {
    const F magnitude = as_f32((a & 0x7FFF) << 13) * 0x1p112f;
    const I special = ((a & 0x7C00) == 0x7C00) & 0x7F800000;
    return as_f32(as_int(magnitude) | special | ((a & 0x8000) << 16));
  }
  static MLXN_SIMD F round_f16(F a) {
    const U bits = half_bits(a);
    return f16_low(reinterpret_cast<I>(bits));
  }
  static MLXN_SIMD void store_f16(void* p, F a) {
    const U bits = half_bits(a);
    const std::uint16_t h[4] = {static_cast<std::uint16_t>(bits[0]), static_cast<std::uint16_t>(bits[1]),
                                static_cast<std::uint16_t>(bits[2]), static_cast<std::uint16_t>(bits[3])};
    __builtin_memcpy(p, h, sizeof(h));
  }
  /// Adding and subtracting 1.5 * 2^23 leaves the nearest integer, ties to even.
  static MLXN_SIMD I store_rounded_bytes(std::int8_t* p, F a) {
    const F clamped = max(-max(-a, set_f32(-127.0f)), set_f32(-127.0f));
    const I q = as_int(clamped + 12582912.0f) - 0x4B400000;
    for (int i = 0; i < 4; ++i) p[i] = static_cast<std::int8_t>(q[i]);
    return q;
  }

  static MLXN_SIMD I lookup(const std::int8_t* table, I index) {
    std::uint8_t at[16];
    __builtin_memcpy(at, &index, sizeof(at));
    std::int8_t out[16];
    for (int i = 0; i < 16; ++i) out[i] = table[at[i]];
    return get<I>(out);
  }
  static MLXN_SIMD I byte_on_top(I v, int b) { return and_(shl(v, 24 - 8 * b), set(static_cast<int>(0xFF000000u))); }
  static MLXN_SIMD I spread_bits(I bits, int j) {
    return (((shr(bits, 4 * j) & 15) * 0x00204081) & 0x01010101) << 4;
  }

  template <int kVectors, int kMaxCode>
  static MLXN_SIMD I dot_unsigned(I acc, const I* w, const std::int8_t* x) {
    return dot_signed<kVectors>(acc, w, x);  // codes below 128 read the same either way
  }
  template <int kVectors>
  static MLXN_SIMD I dot_signed(I acc, const I* w, const std::int8_t* x) {
    MLXN_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      acc += sar(shl(w[i], 24), 24) * x[4 * i] + sar(shl(w[i], 16), 24) * x[4 * i + 1] +
             sar(shl(w[i], 8), 24) * x[4 * i + 2] + sar(w[i], 24) * x[4 * i + 3];
    }
    return acc;
  }

  template <class Place>
  static MLXN_SIMD void transpose4(const std::uint8_t* const* rows, std::int64_t offset, Place&& place) {
    for (int r = 0; r < 16; ++r) {
      for (int j = 0; j < 4; ++j) __builtin_memcpy(place(j) + 4 * r, rows[r] + offset + 4 * j, 4);
    }
  }

 private:
  template <class T>
  static MLXN_SIMD T get(const void* p) {
    T v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  /// Nearest even: the float adder rounds at the half's last place once the value is scaled next to a suitable bias.
  static MLXN_SIMD U half_bits(F a) {
    const U bits = reinterpret_cast<U>(a);
    const U sign = (bits >> 16) & 0x8000u;
    const U magnitude = bits & 0x7FFFFFFFu;
    const U rounded = (magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
    const U tiny = reinterpret_cast<U>(reinterpret_cast<F>(magnitude) + 0.5f) - 0x3F000000u;
    const U is_tiny = reinterpret_cast<U>(magnitude < (113u << 23));
    const U is_big = reinterpret_cast<U>(magnitude >= 0x477FF000u);
    const U is_nan = reinterpret_cast<U>(magnitude > 0x7F800000u);
    U h = (tiny & is_tiny) | (rounded & ~is_tiny);
    h = (h & ~is_big) | (0x7C00u & is_big);
    return h | sign | (0x0200u & is_nan);
  }
};

}  // namespace mlxn::simd
