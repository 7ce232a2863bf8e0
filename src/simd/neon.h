#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "simd/inline.h"

namespace mlxn::simd {

/// Four lanes of 32 bits of any ARM64. The members are those of Avx512.
struct Neon {
  static constexpr int kLanes = 4;
  static constexpr int kMaxTile = 4;
  static constexpr int kExactTile = 4;
  static constexpr bool kUnpackFirst = true;
  static constexpr int kSlabColumns = 2;
  static constexpr bool kSettled = true;
  static constexpr bool kProductsByLane = true;
  static constexpr bool kUnrolled = true;
  static constexpr bool kSignedBytes = true;
  static constexpr bool kFloatTables = false;
  static constexpr bool kAsksAhead = false;
  static constexpr bool kGroupsTogether = false;
  using F = float32x4_t;
  using I = int32x4_t;

  static MLXN_SIMD I load(const void* p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const std::uint8_t*>(p))); }
  static MLXN_SIMD void store(void* p, I v) { vst1q_u8(static_cast<std::uint8_t*>(p), vreinterpretq_u8_s32(v)); }
  static MLXN_SIMD F load_f32(const float* p) { return vld1q_f32(p); }
  static MLXN_SIMD void store_f32(float* p, F v) { vst1q_f32(p, v); }
  static MLXN_SIMD I zero() { return vdupq_n_s32(0); }
  static MLXN_SIMD I set(std::int32_t v) { return vdupq_n_s32(v); }
  static MLXN_SIMD F set_f32(float v) { return vdupq_n_f32(v); }

  static MLXN_SIMD I and_(I a, I b) { return vandq_s32(a, b); }
  static MLXN_SIMD I or_(I a, I b) { return vorrq_s32(a, b); }
  static MLXN_SIMD I xor_(I a, I b) { return veorq_s32(a, b); }
  static MLXN_SIMD I shr(I a, int n) { return vreinterpretq_s32_u32(vreinterpretq_u32_s32(a) >> static_cast<unsigned>(n)); }
  static MLXN_SIMD I shl(I a, int n) { return vreinterpretq_s32_u32(vreinterpretq_u32_s32(a) << static_cast<unsigned>(n)); }
  static MLXN_SIMD I sar(I a, int n) { return a >> n; }
  static MLXN_SIMD I add_int(I a, I b) { return vaddq_s32(a, b); }
  static MLXN_SIMD I sub_bytes(I a, I b) {
    return vreinterpretq_s32_u8(vsubq_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
  }

  static MLXN_SIMD F mul(F a, F b) { return vmulq_f32(a, b); }
  static MLXN_SIMD F add(F a, F b) { return vaddq_f32(a, b); }
  static MLXN_SIMD F div(F a, F b) { return vdivq_f32(a, b); }
  static MLXN_SIMD F max(F a, F b) { return vmaxq_f32(a, b); }
  static MLXN_SIMD F abs(F a) { return vabsq_f32(a); }
  static MLXN_SIMD F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  /// t[i] += a * x[i] for the four floats at x.
  static MLXN_SIMD void fma_by_lane(F a, const float* x, F* t) {
    const F four = load_f32(x);
    t[0] = vfmaq_laneq_f32(t[0], a, four, 0);
    t[1] = vfmaq_laneq_f32(t[1], a, four, 1);
    t[2] = vfmaq_laneq_f32(t[2], a, four, 2);
    t[3] = vfmaq_laneq_f32(t[3], a, four, 3);
  }
  static MLXN_SIMD F to_f32(I a) { return vcvtq_f32_s32(a); }
  static MLXN_SIMD F as_f32(I a) { return vreinterpretq_f32_s32(a); }
  static MLXN_SIMD I as_int(F a) { return vreinterpretq_s32_f32(a); }
  static MLXN_SIMD float max_lane(F a) { return vmaxvq_f32(a); }
  static MLXN_SIMD float sum_lanes(F a) { return vaddvq_f32(a); }

  static MLXN_SIMD F load_f16(const void* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const std::uint8_t*>(p)))); }
  static MLXN_SIMD F load_bf16(const void* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(static_cast<const std::uint8_t*>(p))), 16));
  }
  static MLXN_SIMD I load_bytes(const void* p) {
    std::uint32_t four;
    __builtin_memcpy(&four, p, 4);
    const uint16x8_t words = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
  }
  static MLXN_SIMD F f16_low(I a) { return vcvt_f32_f16(vreinterpret_f16_s16(vmovn_s32(a))); }
  static MLXN_SIMD F round_f16(F a) { return vcvt_f32_f16(vcvt_f16_f32(a)); }
  static MLXN_SIMD void store_f16(void* p, F a) {
    vst1_u8(static_cast<std::uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(a)));
  }
  static MLXN_SIMD I store_rounded_bytes(std::int8_t* p, F a) {
    const I q = vmaxq_s32(vminq_s32(vcvtnq_s32_f32(a), set(127)), set(-127));
    const int16x4_t words = vmovn_s32(q);
    const std::int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
    __builtin_memcpy(p, &four, 4);
    return q;
  }

  static MLXN_SIMD I lookup(const std::int8_t* table, I index) {
    return vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s32(index)));
  }
  static MLXN_SIMD I byte_on_top(I v, int b) { return and_(shl(v, 24 - 8 * b), set(static_cast<int>(0xFF000000u))); }
  static MLXN_SIMD I spread_bits(I bits, int j) {
    const uint8x16_t lanes = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    const uint8x16_t spread = vqtbl1q_u8(vreinterpretq_u8_s32(bits), vaddq_u8(lanes, vdupq_n_u8(static_cast<std::uint8_t>(j / 2))));
    const uint8x16_t mask = vreinterpretq_u8_s32(set(static_cast<int>(0x08040201u << (4 * (j % 2)))));
    return vreinterpretq_s32_u8(vtstq_u8(spread, mask));
  }

  template <int kVectors, int kMaxCode>
  static MLXN_SIMD I dot_unsigned(I acc, const I* w, const std::int8_t* x) {
    static_assert(kMaxCode < 128, "such codes are no signed bytes");
    return dot<kVectors, 32767 / (kMaxCode * 127)>(acc, w, x);
  }
  /// The same with weights -128 .. 127.
  template <int kVectors>
  static MLXN_SIMD I dot_signed(I acc, const I* w, const std::int8_t* x) {
    return dot<kVectors, 32767 / (128 * 127)>(acc, w, x);
  }

  template <class Place>
  static MLXN_SIMD void transpose4(const std::uint8_t* const* rows, std::int64_t offset, Place&& place) {
    MLXN_UNROLL
    for (int quarter = 0; quarter < 4; ++quarter) {
      const auto row = [&](int r) MLXN_LAMBDA { return load(rows[4 * quarter + r] + offset); };
      const I a = row(0), b = row(1), c = row(2), d = row(3);
      const int64x2_t even_low = vreinterpretq_s64_s32(vtrn1q_s32(a, b)), even_high = vreinterpretq_s64_s32(vtrn1q_s32(c, d));
      const int64x2_t odd_low = vreinterpretq_s64_s32(vtrn2q_s32(a, b)), odd_high = vreinterpretq_s64_s32(vtrn2q_s32(c, d));
      store(place(0) + 16 * quarter, vreinterpretq_s32_s64(vtrn1q_s64(even_low, even_high)));
      store(place(1) + 16 * quarter, vreinterpretq_s32_s64(vtrn1q_s64(odd_low, odd_high)));
      store(place(2) + 16 * quarter, vreinterpretq_s32_s64(vtrn2q_s64(even_low, even_high)));
      store(place(3) + 16 * quarter, vreinterpretq_s32_s64(vtrn2q_s64(odd_low, odd_high)));
    }
  }

 private:
  /// Sums of products in 16 bits, widened after every kRun vectors: that many products of a byte stay below 2^15.
  template <int kVectors, int kRun>
  static MLXN_SIMD I dot(I acc, const I* w, const std::int8_t* x) {
    int16x8_t low = vdupq_n_s16(0), high = low;
    MLXN_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      std::int32_t quad;
      __builtin_memcpy(&quad, x + 4 * i, 4);
      const int8x16_t a = vreinterpretq_s8_s32(w[i]), b = vreinterpretq_s8_s32(set(quad));
      if (i % kRun == 0) {
        low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        high = vmull_high_s8(a, b);
      } else {
        low = vmlal_s8(low, vget_low_s8(a), vget_low_s8(b));
        high = vmlal_high_s8(high, a, b);
      }
      if (i % kRun == kRun - 1 || i == kVectors - 1) acc = vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
    }
    return acc;
  }
};

#if defined(__ARM_FEATURE_DOTPROD)
/// With dot products of four bytes a lane.
struct NeonDotprod : Neon {
  static constexpr int kMaxTile = 8;

  template <int kVectors, int kMaxCode>
  static MLXN_SIMD I dot_unsigned(I acc, const I* w, const std::int8_t* x) {
    static_assert(kMaxCode < 128, "such codes are no signed bytes");
    return dot_signed<kVectors>(acc, w, x);
  }
  template <int kVectors>
  static MLXN_SIMD I dot_signed(I acc, const I* w, const std::int8_t* x) {
    static_assert(kVectors % 4 == 0, "sixteen of x are loaded at a time");
    MLXN_UNROLL
    for (int i = 0; i < kVectors; i += 4) {
      const int8x16_t sixteen = vld1q_s8(x + 4 * i);
      acc = vdotq_laneq_s32(acc, vreinterpretq_s8_s32(w[i]), sixteen, 0);
      acc = vdotq_laneq_s32(acc, vreinterpretq_s8_s32(w[i + 1]), sixteen, 1);
      acc = vdotq_laneq_s32(acc, vreinterpretq_s8_s32(w[i + 2]), sixteen, 2);
      acc = vdotq_laneq_s32(acc, vreinterpretq_s8_s32(w[i + 3]), sixteen, 3);
    }
    return acc;
  }
};
#endif

#if defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)
/// With products of a pair of rows of weights and a pair of rows of x. A vector of sums is then
/// [w0 x0, w0 x1, w1 x0, w1 x1].
struct NeonI8mm : NeonDotprod {
  static MLXN_SIMD I zip_low(I a, I b) { return vzip1q_s32(a, b); }
  static MLXN_SIMD I zip_high(I a, I b) { return vzip2q_s32(a, b); }
  static MLXN_SIMD F zip_low(F a, F b) { return vzip1q_f32(a, b); }
  static MLXN_SIMD F zip_high(F a, F b) { return vzip2q_f32(a, b); }
  static MLXN_SIMD F unzip_even(F a, F b) { return vuzp1q_f32(a, b); }
  static MLXN_SIMD F unzip_odd(F a, F b) { return vuzp2q_f32(a, b); }
  /// Eight bytes, twice.
  static MLXN_SIMD I twice(const void* p) {
    std::int64_t eight;
    __builtin_memcpy(&eight, p, 8);
    return vreinterpretq_s32_s64(vdupq_n_s64(eight));
  }
  /// acc + the dot products of eight bytes each of two rows of weights and two of x.
  static MLXN_SIMD I dot_pairs(I acc, I w, I x) { return vmmlaq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x)); }
  /// acc + the dot products of the four bytes of each lane.
  static MLXN_SIMD I dot_lanes(I acc, I w, I x) { return vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x)); }
  /// The sums of neighbouring lanes, of a and then of b.
  static MLXN_SIMD I add_neighbours(I a, I b) { return vpaddq_s32(a, b); }
};
#endif

}  // namespace mlxn::simd
