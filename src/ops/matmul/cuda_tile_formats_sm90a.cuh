// Weight records (quant/records.h) to operand A of warpgroup matrix instructions, type by type.
//
// A lane reads its share of half a record, 16 rows x 128 k: words of codes that are its own
// (cuda_tile_codes_sm90a.cuh), and row data of rows g and g + 8, which the four lanes of a row share. Per
// plane of 64 k it makes four fragments of 16 k of f16 numbers w * 2^s, where the power keeps the row's
// largest weight between 2^-6 and 2^3 (mxfp4: 2^4; bytes: 2^12), so that no f16 scale overflows and weights lose
// bits only far below the row's largest.
//
// Codes come as f16 subnormals. Types with a scale (and a minimum) in f16 take one multiply-add, which rounds
// once, scales being exact. Types with whole numbers for scales in a super-block take two:
//   v = scale * code - c    exact while c is below 2^11, that is the minimum below about 2^11 d; else rounded
//   w = d * v + b           rounded; b is what c leaves of the minimum, at most half of d
// q6_K and iq4_xs, whose v would be 2^11 and more: (code - zero) * (d * scale), the scale's product in two f16.
//
// Instructions per half record and lane (of 64 registers of A, two weights each) are what a multiprocessor's
// time with few tokens goes by (cuda_tile_sm90a.cuh).
//
// A type is a struct:
//   kCodeBytes, kRowBytes, kSuper   of half a record; whether two halves share a record's row data
//   kRowsAt, planes(half)           where row data begin in the first half, and the planes of either
//   Raw, Own                        codes; the lane's share of a record's scales
//   load(reader, at, lane) -> Raw                 at: where the half's planes begin
//   scaling(exponent, upper) -> RowScaling        of rows g or g + 8
//   own(reader, at, lane, scaling) -> Own         at: where the row data begin
//   unpack<half, plane>(raw, own, scaling, share, a)    share(own, i, j): own word i of lane j of the row's
//   four
#pragma once

#include <cstdint>

#include "cuda_blocks/half2.cuh"
#include "ops/matmul/cuda_tile_codes_sm90a.cuh"
#include "ops/matmul/hopper_tile_shape.h"

namespace mlxn::tile {

using sm90::fast_reciprocal;
using sm90::float_of_bits;
using sm90::h2_add;
using sm90::h2_fma;
using sm90::h2_fma_minus;
using sm90::h2_high;
using sm90::h2_low;
using sm90::h2_mul;
using sm90::h2_of;
using sm90::h2_within;
using sm90::half_to_float;
using sm90::permute;
using sm90::s2_add_above_zero;

/// Powers of two of a row of weights.
struct RowScaling {
  float weight;        // what weights in bf16, and scales beyond f16, are multiplied by
  std::uint32_t d[2];  // the same for scales, in two f16 factors; mxfp4: what is added to exponents, twice
  std::uint32_t m[2];  // the same for minimums
  int back;            // the row's sums are multiplied by 2^back
};
/// Rows g and g + 8.
struct Scaling {
  RowScaling rows[2];
};

MLXN_TILE_FN constexpr int within(int value, int least, int most) {
  return value < least ? least : value > most ? most : value;
}
/// power: -126..127.
MLXN_TILE_FN float power_of_two(int power) {
  return float_of_bits(static_cast<std::uint32_t>(power + 127) << 23);
}
/// 2^power, -189..254, as a product: a sum is multiplied by the first, by its token's power, which may make good
/// what 2^power overflows or loses, and by the second. Below 1 the first is all of it where it can be: what has
/// lost nothing by then may be far above what comes out.
struct PowerInTwo {
  float first, second;
};
MLXN_TILE_FN PowerInTwo power_in_two(int power) {
  const int first = power < 0 ? within(power, -63, 0) : power / 2;
  return {power_of_two(first), power_of_two(power - first)};
}
/// The f16 of 2^power, the largest or zero beyond f16's powers.
MLXN_TILE_FN constexpr std::uint32_t half_power(int power) {
  if (power >= -14) return static_cast<std::uint32_t>((power < 15 ? power : 15) + 15) << 10;
  return power >= -24 ? 1u << (power + 24) : 0u;
}

/// Of a row whose weights are below 2^exponent whatever their codes are.
struct ToLargest {
  static constexpr bool kIsWide = true;
  static MLXN_TILE_FN RowScaling scaling(int exponent, int) {
    const int power = within(14 - exponent, -126, 126);
    return {power_of_two(power), {0, 0}, {0, 0}, -power};
  }
};

/// Scales in f16 are multiplied by 2^power, minimums by 2^(power - below), in two steps, since f16's powers
/// end at 2^15: exact but for the smallest. Where a scale times kLargest stays below 2^exponent, it stays
/// below 2^15.
template <int kLargestLog2>
MLXN_TILE_FN RowScaling scaling_of_halves(int exponent, int below) {
  const int power = within(15 + kLargestLog2 - exponent, -14, 30), first = power / 2;
  const int less = power - below, less_first = less / 2;
  return {1.0f,
          {half_power(first), half_power(power - first)},
          {half_power(less_first), half_power(less - less_first)},
          -less};
}

// ---- scales in f16

/// w = d * (code - kZero), or d * code + m where kZero < 0, or d * code where it is 0; blocks of 32. kOwnIsScaled: Own has d and m times
/// the row's powers of two already.
template <class CodesT, int kZero, int kLargestLog2, bool kOwnIsScaled = false>
struct Linear {
  static constexpr bool kIsWide = false;  // whether weights may be beyond f16's range
  static constexpr Nesting kNesting = Nesting::none;
  using Codes = CodesT;
  using WholeCodes = Codes;
  using Raw = typename Codes::Raw;
  static constexpr int kSharedWords = 0;
  static constexpr bool kAdds = kZero < 0;
  static constexpr int kRowWords = kAdds ? 4 : 2;
  struct Own {
    std::uint32_t
        w[2 * kRowWords];  // row g: d of blocks 0 1, 2 3 (or d and m of block 0, 1, ...); row g + 8: the same
  };

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    return Codes::load(from, at, lane);
  }
  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane, const Scaling&) {
    Own result;
    MLXN_TILE_UNROLL
    for (int i = 0; i < kRowWords / 2; ++i) {
      const Words4 words = from.words4(at + lane / 4 * (8 * kRowWords) + 16 * static_cast<unsigned>(i));
      MLXN_TILE_UNROLL
      for (int j = 0; j < 4; ++j) result.w[4 * i + j] = words.w[j];
    }
    return result;
  }
  /// Codes are code * 2^(place - 24).
  static MLXN_TILE_FN RowScaling scaling(int exponent, int upper) {
    return scaling_of_halves<kLargestLog2>(exponent, 24 - Codes::place(0, upper));
  }

  template <int kHalf, int kPlane, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Scaling& scaling, const Share&,
                                  std::uint32_t (&a)[4][4]) {
    std::uint32_t d[2][2], m[2][2];  // of rows g, g + 8, and the plane's two blocks
    MLXN_TILE_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      const RowScaling& s = scaling.rows[upper];
      if constexpr (kAdds) {
        MLXN_TILE_UNROLL
        for (int block = 0; block < 2; ++block) {
          std::uint32_t both = own.w[4 * upper + 2 * kPlane + block];
          if constexpr (!kOwnIsScaled)
            both = h2_mul(h2_mul(both, s.d[0] | s.m[0] << 16), s.d[1] | s.m[1] << 16);
          d[upper][block] = h2_low(both);
          m[upper][block] = h2_high(both);
        }
      } else if constexpr (kZero == 0) {
        const std::uint32_t scales =
            h2_mul(h2_mul(own.w[2 * upper + kPlane], twice(s.d[0])), twice(s.d[1]));
        d[upper][0] = h2_low(scales), d[upper][1] = h2_high(scales);
      } else {
        constexpr int kZeroLog2 = kZero == 8 ? 3 : kZero == 16 ? 4 : 7;
        static_assert(kZero == 1 << kZeroLog2);
        const int below = 24 - kZeroLog2 - Codes::place(0, upper);
        const std::uint32_t exact =
            h2_mul(h2_mul(own.w[2 * upper + kPlane], twice(s.d[0])), twice(s.d[1]));
        // Of small scales the zero's share loses bits. The scale loses the same ones, so that a code of zero is
        // zero whatever x is.
        const std::uint32_t zeros = h2_mul(exact, twice(0x8000u | half_power(-below)));
        const std::uint32_t scales =
            h2_mul(h2_mul(zeros, twice(0x8000u | half_power(below / 2))), twice(half_power(below - below / 2)));
        d[upper][0] = h2_low(scales), d[upper][1] = h2_high(scales);
        m[upper][0] = h2_low(zeros), m[upper][1] = h2_high(zeros);
      }
    }
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      Codes::bits(raw, kPlane, step, a[step]);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i)
        a[step][i] = kZero == 0 ? h2_mul(a[step][i], d[i % 2][step / 2])
                                : h2_fma(a[step][i], d[i % 2][step / 2], m[i % 2][step / 2]);
    }
  }
};

/// MLX's groups of 128 / kGroups weights: w = d * code + m, both numbers in f16 or in bf16, which f32 brings
/// into the range of f16.
template <class CodesT, std::uint32_t kGroups, bool kBf16, int kLargestLog2>
struct Affine : Linear<CodesT, -1, kLargestLog2, kBf16> {
  using Base = Linear<CodesT, -1, kLargestLog2, kBf16>;
  using Own = typename Base::Own;
  static constexpr bool kIsWide = kBf16;
  static MLXN_TILE_FN constexpr int below(int upper) { return 24 - CodesT::place(0, upper); }

  static MLXN_TILE_FN RowScaling scaling(int exponent, int upper) {
    if constexpr (!kBf16) return Base::scaling(exponent, upper);
    const int power = within(15 + kLargestLog2 - exponent, -114, 126);
    return {power_of_two(power), {0, 0}, {0, 0}, below(upper) - power};
  }
  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane,
                              const Scaling& scaling) {
    std::uint32_t groups[2 * kGroups];
    load_groups(from, at + lane / 4 * (8 * kGroups), groups);
    Own result;
    MLXN_TILE_UNROLL
    for (std::uint32_t upper = 0; upper < 2; ++upper) {
      MLXN_TILE_UNROLL
      for (std::uint32_t group = 0; group < kGroups; ++group) {
        std::uint32_t both = groups[upper * kGroups + group];
        if constexpr (kBf16) {
          const float weight = scaling.rows[upper].weight;
          both = h2_of(
              float_of_bits(both << 16) * weight,
              float_of_bits(both & 0xFFFF0000u) * (weight * power_of_two(-below(static_cast<int>(upper)))));
        }
        MLXN_TILE_UNROLL
        for (std::uint32_t i = 0; i < 4 / kGroups; ++i)
          result.w[4 * upper + group * (4 / kGroups) + i] = both;
      }
    }
    return result;
  }

 private:
  template <class Reader, int kCount>
  static MLXN_TILE_FN void load_groups(const Reader& from, std::uint32_t at,
                                       std::uint32_t (&groups)[kCount]) {
    if constexpr (kCount == 2) {
      from.words2(at, groups[0], groups[1]);
    } else {
      MLXN_TILE_UNROLL
      for (int i = 0; i < kCount / 4; ++i) {
        const Words4 words = from.words4(at + 16 * static_cast<unsigned>(i));
        MLXN_TILE_UNROLL
        for (int j = 0; j < 4; ++j) groups[4 * i + j] = words.w[j];
      }
    }
  }
};

/// Powers of two as scales: exact, and f16 numbers made of their exponents. Those below f16's normal numbers would
/// make weights that are zero in f16.
struct Mxfp4Scales {
  static constexpr bool kIsWide = true;
  static constexpr Nesting kNesting = Nesting::none;
  using Codes = LookUpCodes<E2m1Values>;
  using WholeCodes = Codes;
  using Raw = Codes::Raw;
  static constexpr int kSharedWords = 0;
  struct Own {
    std::uint32_t w[4];  // of blocks 0 and 2, 1 and 3 of row g; row g + 8: the same
  };

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    return Codes::load(from, at, lane);
  }
  /// Codes of E2M1 stand for value * 2^-14, and the scale's byte for 2^(byte - 127), f16's exponents for
  /// 2^(exponent - 15).
  static MLXN_TILE_FN RowScaling scaling(int exponent, int) {
    const int power = within(4 - exponent, -126, 126);
    return {power_of_two(power), {twice(static_cast<std::uint32_t>(power + 14 - 112) & 0xFFFFu), 0}, {0, 0}, -power};
  }
  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane,
                              const Scaling& scaling) {
    std::uint32_t bytes[2];
    from.words2(at + lane / 4 * 8, bytes[0], bytes[1]);
    Own result;
    MLXN_TILE_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      MLXN_TILE_UNROLL
      for (int odd = 0; odd < 2; ++odd)
        result.w[2 * upper + odd] =
            s2_add_above_zero(bytes[upper] >> 8 * odd & 0x00FF00FFu, scaling.rows[upper].d[0]) << 10;
    }
    return result;
  }
  template <int kHalf, int kPlane, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Scaling&, const Share&,
                                  std::uint32_t (&a)[4][4]) {
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      Codes::bits(raw, kPlane, step, a[step]);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t d = own.w[i % 2 * 2 + step / 2];
        a[step][i] = h2_mul(a[step][i], kPlane == 0 ? h2_low(d) : h2_high(d));
      }
    }
  }
};

// ---- scales in super-blocks
// A lane's groups of k in each half: t, or 2t and 2t + 1 where groups are of 16. Scales of rows g and g + 8
// are worked on as a pair. of Packed, the packed scales of both rows:
//   load(reader, at, lane) -> Packed
//   d(packed), m(packed)            the super-blocks' scale and minimum, a pair
//   scale<half, i>(packed, lane), minimum<half, i>(packed, lane)     of the lane's group i: bits, a half each

MLXN_TILE_FN std::uint32_t low_halves(std::uint32_t a, std::uint32_t b) { return permute(a, b, 0x5410); }
MLXN_TILE_FN std::uint32_t high_halves(std::uint32_t a, std::uint32_t b) { return permute(a, b, 0x7632); }

/// kGroup: steps of 16 k that share a scale. kScaleZero: the bits that stand for a scale of zero. kZero: the
/// code that is zero, a power of two or 0; none where the type has minimums. v = scale * code is made in units of
/// 2^-19 (row g). kWide: v may be 2^11 or more. Then w = (code - zero) * (d * scale), the product in two f16.
/// WholeCodesT: the codes of w; where a table has them and kWide, times 2^kCodePower.
template <class CodesT, class PackedT, int kGroup, int kScaleZero, int kZero, int kLargestLog2,
          bool kWide = false, class WholeCodesT = CodesT>
struct Nested {
  using Codes = CodesT;
  using WholeCodes = WholeCodesT;
  using Packed = PackedT;
  using Raw = typename Codes::Raw;
  static constexpr bool kIsWide = false;
  static constexpr bool kAdds = kZero < 0;
  static constexpr bool kHasZero = kZero > 0;
  static constexpr Nesting kNesting = kAdds ? Nesting::minimums : Nesting::scales;
  static constexpr int kOwnGroups = 2 / kGroup;  // of a lane, in each half
  static constexpr int kGroupWords = kAdds ? 3 : kWide ? 2 : 1;
  static constexpr int kSharedWords = kOwnGroups * kGroupWords;  // of a half
  static constexpr int kD = 2 * kSharedWords;
  static constexpr int kUnit = -19;  // V of row g: whole numbers * 2^kUnit
  static constexpr int kUpper = Codes::place(0, 1) - Codes::place(0, 0);  // of row g + 8: 2^(kUnit + kUpper)
  static constexpr int kCodePower =
      kWide ? 10 : 0;  // wide: codes less their zero are made in units of 2^(kCodePower - 24)
  struct Own {
    std::uint32_t w[kD + 1];  // per half and group: scales, then -c, b (wide: d * scale in two); d
  };
  static MLXN_TILE_FN constexpr int word_of(int half, int group) {
    return (half * kOwnGroups + group) * kGroupWords;
  }

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    return Codes::load(from, at, lane);
  }
  static MLXN_TILE_FN RowScaling scaling(int exponent, int upper) {
    return scaling_of_halves<kLargestLog2 - (kWide ? 5 : 0)>(exponent, -kUnit - kCodePower - upper * kUpper);
  }

  /// A pair of scaled halves. What would be too large belongs to scales that are all zero; what is not finite
  /// becomes NaN.
  static MLXN_TILE_FN std::uint32_t scaled(std::uint32_t pair, std::uint32_t first, std::uint32_t second) {
    return h2_fma(pair, 0, h2_within(h2_mul(h2_mul(pair, first), second), twice(0x7BFFu)));
  }

  /// Scales of the lane's group, times 32 and for codes that lie further up as much smaller.
  template <int kHalf, int kIndex>
  static MLXN_TILE_FN std::uint32_t scale_of(const Packed& packed, std::uint32_t lane) {
    constexpr int place = Codes::place(kIndex * (kGroup % 2), 0);
    constexpr std::uint32_t zero = 0xF800u + kScaleZero;  // 2^15 and 32 * zero, negative
    const std::uint32_t bits = Packed::template scale<kHalf, kIndex>(packed, lane) | 0x78007800u;
    return place == 0 ? h2_add(bits, twice(zero))
                      : h2_fma(bits, twice(half_power(-place)), twice(zero - place * 1024));
  }
  static MLXN_TILE_FN std::uint32_t of_row(int i, std::uint32_t pair) {
    return i % 2 == 0 ? h2_low(pair) : h2_high(pair);
  }
  static constexpr int kZeroLog2 = kZero == 4 ? 2 : 5;
  static_assert(kAdds || kZero == 0 || kZero == 1 << kZeroLog2);
  /// -zero * scale in the units of v.
  static MLXN_TILE_FN std::uint32_t zero_of(std::uint32_t scale, int step) {
    const int place = kZeroLog2 - 24 + Codes::place(step, 0);
    return h2_mul(scale, twice(0x8000u) | half_power(place) | half_power(place + kUpper) << 16);
  }

  template <int kHalf, int kIndex>
  static MLXN_TILE_FN void group(const Packed& packed, std::uint32_t lane, std::uint32_t d, std::uint32_t m,
                                 std::uint32_t ratio, Own& own) {
    constexpr int at = word_of(kHalf, kIndex);
    own.w[at] = scale_of<kHalf, kIndex>(packed, lane);
    if constexpr (kWide) {
      const std::uint32_t scale = own.w[at];
      own.w[at] = h2_mul(d, scale);
      own.w[at + 1] = h2_fma_minus(d, scale, own.w[at]);
    }
    if constexpr (kAdds) {
      constexpr std::uint32_t unit = half_power(kUnit) | half_power(kUnit + kUpper) << 16;
      constexpr std::uint32_t units = half_power(kUnit + 10) | half_power(kUnit + kUpper + 10) << 16;
      const std::uint32_t minimum =
          h2_add(Packed::template minimum<kHalf, kIndex>(packed, lane) | 0x64006400u, twice(0xE400u));
      const std::uint32_t whole = h2_fma(minimum, ratio, twice(0x6400u));  // 1024 + c, which makes c whole
      const std::uint32_t c = h2_fma_minus(whole, unit, units);
      own.w[at + 1] = c ^ 0x80008000u;
      // d * c - m * minimum: what rounding takes from the first product comes back at the end.
      const std::uint32_t product = h2_mul(d, c);
      own.w[at + 2] = h2_add(h2_fma(m, minimum, product), h2_fma_minus(d, c, product));
    }
  }

  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane,
                              const Scaling& scaling) {
    const RowScaling &low = scaling.rows[0], &high = scaling.rows[1];
    const Packed packed = Packed::load(from, at, lane);
    Own result;
    const std::uint32_t d = scaled(Packed::d(packed), low.d[0] | high.d[0] << 16, low.d[1] | high.d[1] << 16);
    result.w[kD] = d;
    std::uint32_t m = 0, ratio = 0;
    if constexpr (kAdds) {
      const std::uint32_t raw_d = Packed::d(packed), raw_m = Packed::m(packed);
      m = scaled(raw_m, low.m[0] | high.m[0] << 16, low.m[1] | high.m[1] << 16) ^ 0x80008000u;
      // Any ratio will do, but the nearer the smaller b. Beyond 1000 (d may be zero) codes hardly count.
      ratio = h2_within(h2_of(half_to_float(raw_m) * fast_reciprocal(half_to_float(raw_d)),
                              half_to_float(raw_m >> 16) * fast_reciprocal(half_to_float(raw_d >> 16))),
                        twice(0x63D0u));
    }
    group<0, 0>(packed, lane, d, m, ratio, result);
    group<1, 0>(packed, lane, d, m, ratio, result);
    if constexpr (kOwnGroups == 2) {
      group<0, 1>(packed, lane, d, m, ratio, result);
      group<1, 1>(packed, lane, d, m, ratio, result);
    }
    return result;
  }

  template <int kHalf, int kPlane, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Scaling&, const Share& share,
                                  std::uint32_t (&a)[4][4]) {
    std::uint32_t scale = 0, c = 0, b = 0;
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      if (step % kGroup == 0) {
        const int group = (kPlane * 4 + step) / kGroup, word = word_of(kHalf, group % kOwnGroups),
                  of = group / kOwnGroups;
        scale = share(own, word, of);
        if constexpr (kAdds) {
          c = share(own, word + 1, of);
          b = share(own, word + 2, of);
        } else if constexpr (kWide) {
          b = share(own, word + 1, of);
        } else {
          c = zero_of(scale, step);
        }
      }
      WholeCodes::bits(raw, kPlane, step, a[step]);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) {
        if constexpr (kWide) {
          const int place = kCodePower + Codes::place(step, i % 2) - 24;
          static_assert(kZero != 0 || WholeCodes::place(0, 0) == kCodePower);
          const std::uint32_t code = kZero == 0 ? a[step][i]
                                                : h2_fma(a[step][i], twice(half_power(kCodePower)),
                                                         twice(0x8000u | half_power(kZeroLog2 + place)));
          a[step][i] = h2_fma(code, of_row(i, scale), h2_mul(code, of_row(i, b)));
          continue;
        }
        const std::uint32_t v = h2_fma(a[step][i], of_row(i, scale), of_row(i, c));
        a[step][i] = kAdds ? h2_fma(v, of_row(i, own.w[kD]), of_row(i, b)) : h2_mul(v, of_row(i, own.w[kD]));
      }
    }
  }
};

/// The same types where sums are kept by record (Shape::by_record): operands are the whole numbers v = scale
/// * code, whose sums are multiplied by d, and for the minimums an operand of 16 k against sums of x
/// (sum_x), whose sums are multiplied by m. No weight is rounded, but for a few large ones of q6_K
/// and iq4_xs.
template <class F>
struct ByRecord {
  using Codes = typename F::Codes;
  using Packed = typename F::Packed;
  using Raw = typename F::Raw;
  static constexpr bool kAdds = F::kAdds, kZeros = F::kHasZero;
  static constexpr int kSharedWords = F::kOwnGroups;  // of a half
  static constexpr int kScales = 2 * kSharedWords, kD = kScales * (kAdds ? 2 : 1);
  struct Own {
    std::uint32_t w[kD + (kAdds ? 2 : 1)];  // per half and group: scales; minimums; d, m
  };
  /// What sums of rows g and g + 8 are multiplied by.
  struct Factors {
    float d[2], m[2];
  };

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    return Codes::load(from, at, lane);
  }
  /// Of the sums of row g or g + 8 over all records.
  static MLXN_TILE_FN float back(int upper) { return power_of_two(-F::kUnit - upper * F::kUpper); }

  template <int kHalf, int kIndex>
  static MLXN_TILE_FN void group(const Packed& packed, std::uint32_t lane, Own& own) {
    constexpr int at = kHalf * F::kOwnGroups + kIndex;
    own.w[at] = F::template scale_of<kHalf, kIndex>(packed, lane);
    if constexpr (kAdds) {
      // Sums of x are 2^-4 of what they should be. 2^10 units and bits, less 2^10 units.
      constexpr std::uint32_t units = half_power(F::kUnit + 14) | half_power(F::kUnit + F::kUpper + 14) << 16;
      own.w[kScales + at] =
          h2_add(Packed::template minimum<kHalf, kIndex>(packed, lane) | units, units | 0x80008000u);
    }
  }
  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    const Packed packed = Packed::load(from, at, lane);
    Own result;
    result.w[kD] = Packed::d(packed);
    if constexpr (kAdds) result.w[kD + 1] = Packed::m(packed);
    group<0, 0>(packed, lane, result);
    group<1, 0>(packed, lane, result);
    if constexpr (F::kOwnGroups == 2) {
      group<0, 1>(packed, lane, result);
      group<1, 1>(packed, lane, result);
    }
    return result;
  }
  static MLXN_TILE_FN Factors factors(const Own& own) {
    Factors f{{half_to_float(own.w[kD]), half_to_float(own.w[kD] >> 16)}, {0, 0}};
    if constexpr (kAdds) f.m[0] = half_to_float(own.w[kD + 1]), f.m[1] = half_to_float(own.w[kD + 1] >> 16);
    return f;
  }

  template <int kHalf, int kPlane, int kGroup = 2 / F::kOwnGroups, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Share& share,
                                  std::uint32_t (&a)[4][4]) {
    std::uint32_t scale = 0, zero = 0;
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      if (step % kGroup == 0) {
        const int group = (kPlane * 4 + step) / kGroup;
        scale = share(own, kHalf * F::kOwnGroups + group % F::kOwnGroups, group / F::kOwnGroups);
        if constexpr (kZeros) zero = F::zero_of(scale, step);
      }
      Codes::bits(raw, kPlane, step, a[step]);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i)
        a[step][i] = kZeros ? h2_fma(a[step][i], F::of_row(i, scale), F::of_row(i, zero))
                            : h2_mul(a[step][i], F::of_row(i, scale));
    }
  }
  /// The minimums of a half's groups of 16 k, twice: k 0..7 against the sums, k 8..15 against the rest of
  /// them.
  template <int kHalf>
  static MLXN_TILE_FN void minimums(const Own& own, std::uint32_t (&a)[4]) {
    static_assert(kAdds);
    constexpr int first = kScales + kHalf * F::kOwnGroups, second = first + F::kOwnGroups - 1;
    a[0] = a[2] = low_halves(own.w[first], own.w[second]);
    a[1] = a[3] = high_halves(own.w[first], own.w[second]);
  }
};

/// q4_K, q5_K: 6 bits for scales and minimums, bytes 0..3 and 4..7 those of the first half and, in their
/// upper bits, the upper ones of the second half's, whose lower four lie in bytes 8..11.
struct PackedPairs {
  std::uint32_t heads[2];               // d, dmin
  std::uint32_t scales, minimums, low;  // the lane's bytes of rows g and g + 8, at the bottom of the halves

  template <class Reader>
  static MLXN_TILE_FN PackedPairs load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    const Words4 g = from.words4(at + lane / 4 * 32), h = from.words4(at + lane / 4 * 32 + 16);
    const std::uint32_t byte = lane % 4 * 0x0101u + 0x0400u;
    return {{g.w[0], h.w[0]},
            permute(g.w[1], h.w[1], byte),
            permute(g.w[2], h.w[2], byte),
            permute(g.w[3], h.w[3], byte)};
  }
  static MLXN_TILE_FN std::uint32_t d(const PackedPairs& p) { return low_halves(p.heads[0], p.heads[1]); }
  static MLXN_TILE_FN std::uint32_t m(const PackedPairs& p) { return high_halves(p.heads[0], p.heads[1]); }
  template <int kHalf, int>
  static MLXN_TILE_FN std::uint32_t scale(const PackedPairs& p, std::uint32_t) {
    return kHalf == 0 ? p.scales & twice(63) : (p.low & twice(15)) | (p.scales >> 2 & twice(48));
  }
  template <int kHalf, int>
  static MLXN_TILE_FN std::uint32_t minimum(const PackedPairs& p, std::uint32_t) {
    return kHalf == 0 ? p.minimums & twice(63) : (p.low >> 4 & twice(15)) | (p.minimums >> 2 & twice(48));
  }
};
/// Two bytes of rows g and g + 8, which lie `step` bytes apart: the lane's of one half.
template <class Reader>
MLXN_TILE_FN std::uint32_t bytes_of_rows(const Reader& from, std::uint32_t at, std::uint32_t step) {
  return from.u16(at) | from.u16(at + step) << 16;
}
/// q2_K: a byte for each group, the scale below the minimum.
struct Q2KScales {
  std::uint32_t bytes[2], heads[2];

  template <class Reader>
  static MLXN_TILE_FN Q2KScales load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    const std::uint32_t of_lane = at + lane / 4 * 32 + lane % 4 * 2;
    Q2KScales p{{bytes_of_rows(from, of_lane, 16), bytes_of_rows(from, of_lane + 8, 16)}, {}};
    from.words2(at + 256 + lane / 4 * 8, p.heads[0], p.heads[1]);
    return p;
  }
  static MLXN_TILE_FN std::uint32_t d(const Q2KScales& p) { return low_halves(p.heads[0], p.heads[1]); }
  static MLXN_TILE_FN std::uint32_t m(const Q2KScales& p) { return high_halves(p.heads[0], p.heads[1]); }
  template <int kHalf, int kIndex>
  static MLXN_TILE_FN std::uint32_t scale(const Q2KScales& p, std::uint32_t) {
    return p.bytes[kHalf] >> 8 * kIndex & twice(15);
  }
  template <int kHalf, int kIndex>
  static MLXN_TILE_FN std::uint32_t minimum(const Q2KScales& p, std::uint32_t) {
    return p.bytes[kHalf] >> (8 * kIndex + 4) & twice(15);
  }
};
/// q3_K: four bits in bytes 0..7, those of the second half above those of the first; two in bytes 8..11.
struct Q3KScales {
  std::uint32_t low, high, both;

  template <class Reader>
  static MLXN_TILE_FN Q3KScales load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    const std::uint32_t t = lane % 4, slot = at + lane / 4 * 24;
    return {bytes_of_rows(from, slot + t * 2, 12), bytes_of_rows(from, slot + 8 + t % 2 * 2, 12) >> t / 2 * 2,
            from.u32(at + 192 + lane / 4 * 4)};
  }
  static MLXN_TILE_FN std::uint32_t d(const Q3KScales& p) { return p.both; }
  template <int kHalf, int kIndex>
  static MLXN_TILE_FN std::uint32_t scale(const Q3KScales& p, std::uint32_t) {
    constexpr int kFrom = 8 * kIndex + 4 * kHalf;
    return (p.low >> kFrom & twice(15)) | (moved(p.high, 4 - kFrom) & twice(48));
  }
};
/// q6_K: a signed byte for each group.
struct Q6KScales {
  std::uint32_t bytes[2], both;

  template <class Reader>
  static MLXN_TILE_FN Q6KScales load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    const std::uint32_t of_lane = at + lane / 4 * 32 + lane % 4 * 2;
    return {
        {bytes_of_rows(from, of_lane, 16) ^ 0x80808080u, bytes_of_rows(from, of_lane + 8, 16) ^ 0x80808080u},
        from.u32(at + 256 + lane / 4 * 4)};
  }
  static MLXN_TILE_FN std::uint32_t d(const Q6KScales& p) { return p.both; }
  template <int kHalf, int kIndex>
  static MLXN_TILE_FN std::uint32_t scale(const Q6KScales& p, std::uint32_t) {
    return p.bytes[kHalf] >> 8 * kIndex & twice(255);
  }
};
/// iq4_xs: two bits of each of eight groups in a half, four in a word.
struct Iq4XsScales {
  std::uint32_t both, high, low[2];

  template <class Reader>
  static MLXN_TILE_FN Iq4XsScales load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    const std::uint32_t t = lane % 4;
    const Words4 rows = from.words4(at + lane / 4 * 16);
    return {low_halves(rows.w[0], rows.w[2]),
            high_halves(rows.w[0], rows.w[2]) >> 2 * t,
            {low_halves(rows.w[1], rows.w[3]) >> 4 * t, high_halves(rows.w[1], rows.w[3]) >> 4 * t}};
  }
  static MLXN_TILE_FN std::uint32_t d(const Iq4XsScales& p) { return p.both; }
  template <int kHalf, int>
  static MLXN_TILE_FN std::uint32_t scale(const Iq4XsScales& p, std::uint32_t) {
    return (p.low[kHalf] & twice(15)) | (moved(p.high, 4 - 8 * kHalf) & twice(48));
  }
};

// ---- types

/// kSecond: bytes of the second plane, part of kCodes.
template <std::uint32_t kCodes, std::uint32_t kRows, bool kSuperBlocks, std::uint32_t kSecond = 0>
struct Sizes {
  static constexpr std::uint32_t kCodeBytes = kCodes;
  static constexpr std::uint32_t kRowBytes = kRows;
  static constexpr bool kSuper = kSuperBlocks;
  static constexpr std::uint32_t kRowsAt = kSuper ? kCodes : 0;
  static MLXN_TILE_FN constexpr PlanesAt planes(std::uint32_t half) {
    return kSuper ? PlanesAt{half * kRows, half * kRows + kCodes - kSecond} : PlanesAt{kRows + kSecond, kRows};
  }
  static constexpr bool kIsScaled = true;  // by a power of two for each row
};

struct Q4_0 : Sizes<1024, 128, false>, Linear<NibbleCodes<0, 2>, 8, 3> {};
struct Q4_1 : Sizes<1024, 256, false>, Linear<NibbleCodes<0, 2>, -1, 3> {};
struct Q5_0 : Sizes<1280, 128, false, 256>, Linear<NibbleCodes<1>, 16, 4> {};
struct Q5_1 : Sizes<1280, 256, false, 256>, Linear<NibbleCodes<1>, -1, 4> {};
struct Q8_0 : Sizes<2048, 128, false>, Linear<ByteCodes, 128, 7> {};
struct Iq4Nl : Sizes<1024, 128, false>, Linear<LookUpCodes<Iq4Values>, 0, 6> {};
struct Mxfp4 : Sizes<1024, 64, false>, Mxfp4Scales {};
struct Q2K : Sizes<512, 320, true>, Nested<PairCodes<0>, Q2KScales, 1, 0, -1, 1> {};
struct Q3K : Sizes<768, 224, true, 256>, Nested<PairCodes<1>, Q3KScales, 1, 32, 4, 2> {};
struct Q4K : Sizes<1024, 256, true>, Nested<NibbleCodes<0>, PackedPairs, 2, 0, -1, 3> {};
struct Q5K : Sizes<1280, 256, true, 256>, Nested<NibbleCodes<1>, PackedPairs, 2, 0, -1, 4> {};
struct Q6K : Sizes<1536, 288, true, 512>, Nested<NibbleCodes<2>, Q6KScales, 1, 128, 32, 5, true> {};
struct Iq4Xs : Sizes<1024, 128, true>,
               Nested<LookUpCodes<Iq4Values>, Iq4XsScales, 2, 32, 0, 6, true, LookUpCodes<Iq4ValuesLifted>> {};

template <std::uint32_t kGroups, bool kBf16>
struct Affine4 : Sizes<1024, 64 * kGroups, false>, Affine<NibbleCodes<0, 2>, kGroups, kBf16, 3> {};
template <std::uint32_t kGroups, bool kBf16>
struct Affine8 : Sizes<2048, 64 * kGroups, false>, Affine<ByteCodes, kGroups, kBf16, 7> {};
using Affine4G64 = Affine4<2, false>;
using Affine4G128 = Affine4<1, false>;
using Affine8G32 = Affine8<4, false>;
using Affine8G64 = Affine8<2, false>;
using Affine8G128 = Affine8<1, false>;
using Affine4G32Bf16 = Affine4<4, true>;
using Affine4G64Bf16 = Affine4<2, true>;
using Affine4G128Bf16 = Affine4<1, true>;
using Affine8G32Bf16 = Affine8<4, true>;
using Affine8G64Bf16 = Affine8<2, true>;
using Affine8G128Bf16 = Affine8<1, true>;

// ---- dense weights

/// Where the matrix instructions take weights from: memory, as f16 or bf16, or registers, where they become
/// f16.
enum class DenseOperand { f16, bf16, to_f16 };

template <DenseOperand kFrom>
struct Dense {
  static constexpr std::uint32_t kCodeBytes = 16 * 128 * 2, kRowBytes = 0;
  static constexpr bool kSuper = false;
  static constexpr DenseOperand kOperand = kFrom;
  static constexpr bool kIsScaled = kFrom == DenseOperand::to_f16;
};
struct F16 : Dense<DenseOperand::f16> {};
/// With x in bf16 too.
struct Bf16Narrow : Dense<DenseOperand::bf16> {};
/// With x in f16: weights lose bits only where they are 2^-31 of the row's largest or less.
struct Bf16 : Dense<DenseOperand::to_f16>, ToLargest {
  /// A pair of bf16, times the row's power of two.
  static MLXN_TILE_FN std::uint32_t to_f16(std::uint32_t pair, float power) {
    return h2_of(float_of_bits(pair << 16) * power, float_of_bits(pair & 0xFFFF0000u) * power);
  }
};

#undef MLXN_TILE_FN
#undef MLXN_TILE_UNROLL

}  // namespace mlxn::tile
