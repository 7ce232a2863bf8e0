// Weight records (quant/records.h) to operand A of warpgroup matrix instructions, type by type.
//
// A lane reads its share of half a record, 16 rows x 128 k: words of codes that are its own (rows g and g +
// 8, g = lane / 4), and row data, which the four lanes of a row share. Per plane of 64 k it makes four
// fragments of 16 k:
//   a0 row g, k 2t 2t+1    a1 row g + 8, same k    a2, a3 the same rows, k + 8        (t = lane % 4)
// of f16 numbers w * 2^s, where the power keeps the row's largest weight near 2^14 (mxfp4: 2^4; q4_0: 2^-3
// in rows g, 2 in rows g + 8), so that no f16 scale overflows and weights lose bits only far below the
// row's largest.
//
// Whole numbers are made exactly: bits or-ed into the fraction of 1024 (2^10 + code * 2^place), and one f16
// operation that takes away 1024 and a zero. Then w = D * (code - zero) + B: see Centred.
//
// A type is a struct:
//   kCodeBytes, kRowBytes, kSuper   of half a record; whether two halves share a record's row data
//   Raw, Own                        codes; the lane's own share of the scales
//   load(reader, at, lane) -> Raw                       at: where the half's codes begin
//   scaling(exponent, upper) -> RowScaling          of rows g or g + 8
//   own(reader, at, lane, half, scaling) -> Own         at: where the row data begin
//   unpack<plane>(raw, own, scaling, share, a)          share(own, i, j): own word i of lane j of the row's
//   four
// reader: words4, words2, u32, u16, u8 at a byte offset of the run of codes and row data.
#pragma once

#include <cstdint>

#include "cuda_blocks/half2.cuh"

namespace mlxn::tile {

#if defined(__CUDACC__)
#define MLXN_TILE_FN __host__ __device__ __forceinline__
#else
#define MLXN_TILE_FN inline
#endif
#if defined(__CUDA_ARCH__)
#define MLXN_TILE_UNROLL _Pragma("unroll")
#else
#define MLXN_TILE_UNROLL
#endif

using sm90::fast_ratio;
using sm90::float_of_bits;
using sm90::h2_add;
using sm90::h2_fma;
using sm90::h2_high;
using sm90::h2_low;
using sm90::h2_mul;
using sm90::h2_of;
using sm90::half_to_float;
using sm90::permute;

struct Words4 {
  std::uint32_t w[4];
};
template <int kCount>
struct RawWords {
  std::uint32_t w[kCount];
};

/// Powers of two of a row of weights.
struct RowScaling {
  float weight;        // what its weights are multiplied by
  std::uint32_t d[2];  // q4_0: the same for d, in two steps of f16 pairs; mxfp4: what is added to exponents
  float back;          // what the row's sums are multiplied by
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

/// Of a row whose weights are below 2^exponent whatever their codes are.
struct ToLargest {
  static MLXN_TILE_FN RowScaling scaling(int exponent, int) {
    const int power = within(14 - exponent, -126, 126);
    return {power_of_two(power), {0, 0}, power_of_two(-power)};
  }
};

// ---- codes to whole numbers
// -----------------------------------------------------------------------------------------

constexpr std::uint32_t kMagic = 0x64006400u;  // 1024, twice

MLXN_TILE_FN std::uint32_t moved(std::uint32_t word, int left) {
  return left >= 0 ? word << left : word >> -left;
}
MLXN_TILE_FN constexpr std::uint32_t twice(std::uint32_t half) { return half * 0x10001u; }

/// 1024 + code * 2^place to code - zero; offset: -(2^(10 - place) + zero), exact while zero < 2^(10 - place).
MLXN_TILE_FN std::uint32_t centred(std::uint32_t bits, int place, std::uint32_t offset) {
  return place == 0 ? h2_add(bits, offset)
                    : h2_fma(bits, twice((15u - static_cast<unsigned>(place)) * 1024), offset);
}
MLXN_TILE_FN constexpr std::uint32_t offset_of(int place, std::uint32_t zero) {
  return twice(0x8000u + (25u - static_cast<unsigned>(place)) * 1024 + (zero << place));
}

// Codes::bits() leaves 1024 + code * 2^place in a[0..3], place(step, upper) = where the codes of rows g or g
// + 8 lie.

/// 4 bits a code, and kHigh bits above them from a second plane.
template <int kHigh>
struct NibbleCodes {
  static constexpr int kMostZero = 60;
  static MLXN_TILE_FN constexpr int place(int, int upper) { return 4 * upper; }
  static constexpr int kWords = 8 + 2 * kHigh;
  using Raw = RawWords<kWords>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    MLXN_TILE_UNROLL
    for (int plane = 0; plane < 2; ++plane) {
      const Words4 words = from.words4(at + plane * 512 + lane * 16);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) raw.w[4 * plane + i] = words.w[i];
    }
    if constexpr (kHigh == 1) from.words2(at + 1024 + lane * 8, raw.w[8], raw.w[9]);
    if constexpr (kHigh == 2) {
      const Words4 words = from.words4(at + 1024 + lane * 16);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) raw.w[8 + i] = words.w[i];
    }
    return raw;
  }

  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    const std::uint32_t low = raw.w[4 * plane + step];
    const std::uint32_t up = low >> 8;
    a[0] = (low & 0x000F000Fu) | kMagic;
    a[1] = (low & 0x00F000F0u) | kMagic;
    a[2] = (up & 0x000F000Fu) | kMagic;
    a[3] = (up & 0x00F000F0u) | kMagic;
    if constexpr (kHigh > 0) {
      // Where the lane's bits of row g lie in byte 0 of the word; row g + 8 follows, k + 8 is a byte further.
      const std::uint32_t high = kHigh == 1 ? raw.w[8 + plane] : raw.w[8 + 2 * plane + step / 2];
      const int from = kHigh == 1 ? 2 * step : step % 2 * 4;
      constexpr std::uint32_t kMask = twice((1u << kHigh) - 1);
      a[0] |= moved(high, 4 - from) & kMask << 4;
      a[1] |= moved(high, 8 - from - kHigh) & kMask << 8;
      a[2] |= moved(high, 4 - from - 8) & kMask << 4;
      a[3] |= moved(high, 8 - from - kHigh - 8) & kMask << 8;
    }
  }
};

/// 2 bits a code, and kHigh (0 or 1) bits above them.
template <int kHigh>
struct PairCodes {
  static constexpr int kMostZero = 14;
  static MLXN_TILE_FN constexpr int place(int step, int upper) { return step % 2 * 4 + upper * 2; }
  static constexpr int kWords = 4 + 2 * kHigh;
  using Raw = RawWords<kWords>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    const Words4 words = from.words4(at + lane * 16);
    MLXN_TILE_UNROLL
    for (int i = 0; i < 4; ++i) raw.w[i] = words.w[i];
    if constexpr (kHigh == 1) from.words2(at + 512 + lane * 8, raw.w[4], raw.w[5]);
    return raw;
  }

  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    const std::uint32_t low = raw.w[2 * plane + step / 2];
    const std::uint32_t up = low >> 8;
    const int base = place(step, 0);
    const std::uint32_t mask = twice(3) << base;
    a[0] = (low & mask) | kMagic;
    a[1] = (low & mask << 2) | kMagic;
    a[2] = (up & mask) | kMagic;
    a[3] = (up & mask << 2) | kMagic;
    if constexpr (kHigh == 1) {
      const std::uint32_t high = raw.w[4 + plane];
      const std::uint32_t bit = twice(4) << base;
      a[0] |= moved(high, base + 2 - 2 * step) & bit;
      a[1] |= moved(high, base + 4 - 2 * step - 1) & bit << 2;
      a[2] |= moved(high, base + 2 - 2 * step - 8) & bit;
      a[3] |= moved(high, base + 4 - 2 * step - 9) & bit << 2;
    }
  }
};

/// Bytes; 128 is zero.
struct ByteCodes {
  static MLXN_TILE_FN constexpr int place(int, int) { return 0; }
  static constexpr int kWords = 16;
  using Raw = RawWords<kWords>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    MLXN_TILE_UNROLL
    for (int group = 0; group < kWords / 4; ++group) {
      const Words4 words = from.words4(at + group * 512 + lane * 16);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) raw.w[4 * group + i] = words.w[i];
    }
    return raw;
  }
  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    MLXN_TILE_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      const std::uint32_t word = raw.w[8 * plane + 2 * step + upper];
      a[upper] = permute(word, kMagic >> 8 | kMagic, 0x4240);
      a[upper + 2] = permute(word, kMagic >> 8 | kMagic, 0x4341);
    }
  }
};

/// Bytes; 0 is zero.
struct WholeByteCodes : ByteCodes {
  static constexpr int kMostZero = 255;
};

/// Nibbles that stand for the values of iq4_nl and iq4_xs.
struct TableCodes : NibbleCodes<0> {
  static MLXN_TILE_FN constexpr int place(int, int) { return 0; }
  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    // The values plus 128, four a word.
    constexpr std::uint32_t kT0 = 0x3f2d1801u, kT1 = 0x766a5d4fu, kT2 = 0xa6998d81u, kT3 = 0xf1d9c5b5u;
    const std::uint32_t word = raw.w[4 * plane + step];
    const std::uint32_t index = word & 0x77777777u;
    const std::uint32_t choice = ((word & 0x88888888u) >> 1) | 0x32103210u;
    std::uint32_t values[2];  // of nibbles 0..3 and 4..7
    MLXN_TILE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t at = index >> 16 * i;
      values[i] = permute(permute(kT0, kT1, at & 0xFFFFu), permute(kT2, kT3, at & 0xFFFFu),
                          choice >> 16 * i & 0xFFFFu);
    }
    const std::uint32_t first = permute(values[0], values[1], 0x5140);   // k 2t and 2t + 1, rows g and g + 8
    const std::uint32_t second = permute(values[0], values[1], 0x7362);  // k + 8
    a[0] = permute(first, 0x64646464u, 0x4140);
    a[1] = permute(first, 0x64646464u, 0x4342);
    a[2] = permute(second, 0x64646464u, 0x4140);
    a[3] = permute(second, 0x64646464u, 0x4342);
  }
};

/// Nibbles of E2M1: their bits are those of the f16 of value * 2^-14.
struct E2m1Codes : NibbleCodes<0> {
  static MLXN_TILE_FN void numbers(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    const std::uint32_t word = raw.w[4 * plane + step];
    MLXN_TILE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * i;  // of the nibble in its half of the word
      a[i] = (moved(word, 9 - at) & 0x0E000E00u) | (moved(word, 12 - at) & 0x80008000u);
    }
  }
};

// ---- scales
// ---------------------------------------------------------------------------------------------------------
// term(): w = d * code + m of one row (slot = 2 g, or 2 g + 1 for row g + 8) and one group of k in the half;
// m = 0 where zero is a code of the type's.

struct Term {
  float d, m;
};

/// w = D * (code - zero) + B for kGroup steps of 16 k. kZero: the code that is zero, and B = 0; where it is
/// negative, zero is the whole number next to the code that would be it, so that B is at most half of D and
/// its rounding counts little. kFine: D is no f16 but the product of one and a whole number; what is left of
/// it in a second f16 saves weights a second rounding.
template <class Codes, class Type, int kGroup, int kZero, bool kFine>
struct Centred : ToLargest {
  static constexpr bool kAdds = kZero < 0;
  static constexpr int kOwnGroups =
      2 / kGroup;  // of the half's groups that each of a row's four lanes prepares
  static constexpr int kRest = kOwnGroups;
  static constexpr int kB = kOwnGroups * (kFine ? 2 : 1);
  static constexpr int kOffset = kB + kOwnGroups;
  using Raw = typename Codes::Raw;
  struct Own {
    std::uint32_t w[kB + (kAdds ? 2 * kOwnGroups : 0)];
  };

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    return Codes::load(from, at, lane);
  }

  static MLXN_TILE_FN float zero_of(const Term& t) {
    const float zero = rintf(fast_ratio(-t.m, t.d));
    return fminf(fmaxf(zero, 0.0f), static_cast<float>(Codes::kMostZero));
  }

  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane, std::uint32_t half,
                              const Scaling& scaling) {
    Own result;
    MLXN_TILE_UNROLL
    for (int i = 0; i < kOwnGroups; ++i) {
      const std::uint32_t group = lane % 4 * kOwnGroups + static_cast<unsigned>(i);
      const Term low = Type::term(from, at, lane / 4 * 2, group, half);
      const Term high = Type::term(from, at, lane / 4 * 2 + 1, group, half);
      const float s_low = scaling.rows[0].weight, s_high = scaling.rows[1].weight;
      const float d_low = low.d * s_low, d_high = high.d * s_high;
      const std::uint32_t d = h2_of(d_low, d_high);
      result.w[i] = d;
      if constexpr (kFine)
        result.w[kRest + i] = h2_of(d_low - half_to_float(d), d_high - half_to_float(d >> 16));
      if constexpr (kAdds) {
        const float zero_low = zero_of(low), zero_high = zero_of(high);
        result.w[kB + i] = h2_of((low.d * zero_low + low.m) * s_low, (high.d * zero_high + high.m) * s_high);
        // Groups of one step take their turns of places; those of two have the same in both.
        result.w[kOffset + i] = h2_of(-static_cast<float>(1024 >> Codes::place(i, 0)) - zero_low,
                                      -static_cast<float>(1024 >> Codes::place(i, 1)) - zero_high);
      }
    }
    return result;
  }

  template <int kPlane, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Scaling&, const Share& share,
                                  std::uint32_t (&a)[4][4]) {
    std::uint32_t d = 0, rest = 0, b = 0, offset = 0;
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      if (step % kGroup == 0) {
        const int group = (kPlane * 4 + step) / kGroup;
        d = share(own, group % kOwnGroups, group / kOwnGroups);
        if constexpr (kFine) rest = share(own, kRest + group % kOwnGroups, group / kOwnGroups);
        if constexpr (kAdds) b = share(own, kB + group % kOwnGroups, group / kOwnGroups);
        if constexpr (kAdds) offset = share(own, kOffset + group % kOwnGroups, group / kOwnGroups);
      }
      std::uint32_t bits[4];
      Codes::bits(raw, kPlane, step, bits);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const auto of_row = [i](std::uint32_t pair) { return i % 2 == 0 ? h2_low(pair) : h2_high(pair); };
        const int place = Codes::place(step, i % 2);
        const std::uint32_t q =
            centred(bits[i], place, kAdds ? of_row(offset) : offset_of(place, kAdds ? 0 : kZero));
        if constexpr (kFine && kAdds)
          a[step][i] = h2_fma(q, of_row(d), h2_fma(q, of_row(rest), of_row(b)));
        else if constexpr (kFine)
          a[step][i] = h2_fma(q, of_row(d), h2_mul(q, of_row(rest)));
        else if constexpr (kAdds)
          a[step][i] = h2_fma(q, of_row(d), of_row(b));
        else
          a[step][i] = h2_mul(q, of_row(d));
      }
    }
  }
};

/// d of every block of 32.
struct PlainScales {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t) {
    return {half_to_float(from.u16(at + (slot * 4 + group) * 2)), 0.0f};
  }
};
/// d and m of every block of 32: w = d * q + m.
struct ScalesAndMinimums {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t) {
    const std::uint32_t both = from.u32(at + (slot * 4 + group) * 4);
    return {half_to_float(both), half_to_float(both >> 16)};
  }
};
/// Scale and bias of kGroups groups, in f16 or bf16: w = scale * q + bias.
template <std::uint32_t kGroups, bool kBf16>
struct AffineTerms {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t) {
    const std::uint32_t both = from.u32(at + (slot * kGroups + group / (4 / kGroups)) * 4);
    if constexpr (kBf16)
      return {float_of_bits(both << 16), float_of_bits(both & 0xFFFF0000u)};
    else
      return {half_to_float(both), half_to_float(both >> 16)};
  }
};
/// A byte of 0..255 as a number, without the slow conversion.
MLXN_TILE_FN float byte_number(std::uint32_t byte) { return float_of_bits(0x4B000000u | byte) - 8388608.0f; }

/// The packed pairs of q4_K and q5_K: w = d * sc * q - dmin * mn.
struct PackedPairs {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t half) {
    const Words4 head = from.words4(at + slot * 16);
    const std::uint32_t lower = head.w[1] >> 8 * group, middle = head.w[2] >> 8 * group,
                        upper = head.w[3] >> 8 * group;
    const std::uint32_t sc = half == 0 ? lower & 63u : (upper & 15u) | (lower >> 2 & 48u);
    const std::uint32_t mn = half == 0 ? middle & 63u : (upper >> 4 & 15u) | (middle >> 2 & 48u);
    return {half_to_float(head.w[0]) * byte_number(sc), -half_to_float(head.w[0] >> 16) * byte_number(mn)};
  }
};
struct Q2KScales {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t half) {
    const std::uint32_t s = from.u8(at + slot * 16 + half * 8 + group);
    const std::uint32_t both = from.u32(at + 256 + slot * 4);
    return {half_to_float(both) * byte_number(s & 15u), -half_to_float(both >> 16) * byte_number(s >> 4)};
  }
};
struct Q3KScales {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t half) {
    const std::uint32_t packed = at + slot * 12;
    const std::uint32_t low = from.u8(packed + group) >> 4 * half & 15u;
    const std::uint32_t high = from.u8(packed + 8 + group % 4) >> (4 * half + group / 4 * 2) & 3u;
    const float sc = byte_number(low | high << 4) - 32.0f;
    return {half_to_float(from.u16(at + 192 + slot * 2)) * sc, 0.0f};
  }
};
struct Q6KScales {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t half) {
    const float sc = byte_number(from.u8(at + slot * 16 + half * 8 + group) ^ 128u) - 128.0f;
    return {half_to_float(from.u16(at + 256 + slot * 2)) * sc, 0.0f};
  }
};
struct Iq4XsScales {
  template <class Reader>
  static MLXN_TILE_FN Term term(const Reader& from, std::uint32_t at, std::uint32_t slot, std::uint32_t group,
                                std::uint32_t half) {
    const std::uint32_t s = half * 4 + group;
    const std::uint32_t head = from.u32(at + slot * 8);
    const std::uint32_t low = from.u32(at + slot * 8 + 4) >> 4 * s & 15u;
    const float sc = byte_number(low | (head >> (16 + 2 * s) & 3u) << 4) - 32.0f;
    return {half_to_float(head) * sc, 0.0f};
  }
};

// ---- types
// ----------------------------------------------------------------------------------------------------------

template <std::uint32_t kCodes, std::uint32_t kRows, bool kSuperBlocks>
struct Sizes {
  static constexpr std::uint32_t kCodeBytes = kCodes;
  static constexpr std::uint32_t kRowBytes = kRows;
  static constexpr bool kSuper = kSuperBlocks;
  static constexpr bool kIsScaled = true;  // by a power of two for each row
};

/// q4_0 in fewer steps: a nibble q at bits 2..5 or 6..9 of a half is the f16 subnormal q * 2^-22 or q *
/// 2^-18. With d * 2^p in f16 (RowScaling::d, exact but for the smallest) one multiply-add gives d * 2^(p -
/// 22)
/// * (q - 8), rounded once.
struct Q4_0 : Sizes<1024, 128, false> {
  using Codes = NibbleCodes<0>;
  using Raw = Codes::Raw;
  struct Own {
    std::uint32_t w[4];  // row g: blocks 0 1, 2 3; row g + 8: the same
  };

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    return Codes::load(from, at, lane);
  }
  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane, std::uint32_t,
                              const Scaling&) {
    const Words4 words = from.words4(at + lane / 4 * 16);
    return {{words.w[0], words.w[1], words.w[2], words.w[3]}};
  }
  /// d * 2^power is at most 2^15; it is made in two steps, since f16's powers end at 2^15.
  static MLXN_TILE_FN RowScaling scaling(int exponent, int upper) {
    const int power = within(18 - exponent, -14, 30), first = power / 2;
    return {1.0f,
            {twice(static_cast<std::uint32_t>(first + 15) << 10),
             twice(static_cast<std::uint32_t>(power - first + 15) << 10)},
            power_of_two((upper != 0 ? 18 : 22) - power)};
  }
  template <int kPlane, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Scaling& scaling, const Share&,
                                  std::uint32_t (&a)[4][4]) {
    const RowScaling &s_low = scaling.rows[0], &s_high = scaling.rows[1];
    const std::uint32_t low = h2_mul(h2_mul(own.w[kPlane], s_low.d[0]), s_low.d[1]);
    const std::uint32_t high = h2_mul(h2_mul(own.w[2 + kPlane], s_high.d[0]), s_high.d[1]);
    const std::uint32_t low_zero = h2_mul(low, 0x80208020u);    // -8 * 2^-22
    const std::uint32_t high_zero = h2_mul(high, 0x82008200u);  // -8 * 2^-18
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      const std::uint32_t word = raw.w[4 * kPlane + step];
      const std::uint32_t w = word << 2;
      const std::uint32_t v = word >> 6;
      const bool second = step >= 2;  // the second block of 32 in this plane
      const std::uint32_t dl = second ? h2_high(low) : h2_low(low);
      const std::uint32_t dh = second ? h2_high(high) : h2_low(high);
      const std::uint32_t zl = second ? h2_high(low_zero) : h2_low(low_zero);
      const std::uint32_t zh = second ? h2_high(high_zero) : h2_low(high_zero);
      a[step][0] = h2_fma(w & 0x003C003Cu, dl, zl);
      a[step][1] = h2_fma(w & 0x03C003C0u, dh, zh);
      a[step][2] = h2_fma(v & 0x003C003Cu, dl, zl);
      a[step][3] = h2_fma(v & 0x03C003C0u, dh, zh);
    }
  }
};

/// Powers of two as scales: exact, and made of bits, since they go beyond f32's powers together with 2^s.
struct Mxfp4 : Sizes<1024, 64, false> {
  using Raw = E2m1Codes::Raw;
  struct Own {
    std::uint32_t w[1];
  };

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    return E2m1Codes::load(from, at, lane);
  }
  /// Codes of E2M1 stand for value * 2^-14, and the scale's byte for 2^(byte - 127).
  static MLXN_TILE_FN RowScaling scaling(int exponent, int) {
    const int power = within(4 - exponent, -126, 126);
    return {1.0f, {static_cast<std::uint32_t>(14 + power - 127), 0}, power_of_two(-power)};
  }
  /// The f16 of 2^x.
  static MLXN_TILE_FN std::uint32_t power(int x) {
    if (x >= -14) return static_cast<std::uint32_t>((x < 15 ? x : 15) + 15) << 10;
    return x >= -24 ? 1u << (x + 24) : 0u;
  }
  template <class Reader>
  static MLXN_TILE_FN Own own(const Reader& from, std::uint32_t at, std::uint32_t lane, std::uint32_t,
                              const Scaling& scaling) {
    const std::uint32_t slot = lane / 4 * 2, block = lane % 4;
    const int low = static_cast<int>(from.u8(at + slot * 4 + block)) + static_cast<int>(scaling.rows[0].d[0]);
    const int high =
        static_cast<int>(from.u8(at + (slot + 1) * 4 + block)) + static_cast<int>(scaling.rows[1].d[0]);
    return {{power(low) | power(high) << 16}};
  }
  template <int kPlane, class Share>
  static MLXN_TILE_FN void unpack(const Raw& raw, const Own& own, const Scaling&, const Share& share,
                                  std::uint32_t (&a)[4][4]) {
    MLXN_TILE_UNROLL
    for (int step = 0; step < 4; ++step) {
      const std::uint32_t d = share(own, 0, kPlane * 2 + step / 2);
      E2m1Codes::numbers(raw, kPlane, step, a[step]);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) a[step][i] = h2_mul(a[step][i], i % 2 == 0 ? h2_low(d) : h2_high(d));
    }
  }
};

struct Q4_1 : Sizes<1024, 256, false>, Centred<NibbleCodes<0>, ScalesAndMinimums, 2, -1, false> {};
struct Q5_0 : Sizes<1280, 128, false>, Centred<NibbleCodes<1>, PlainScales, 2, 16, false> {};
struct Q5_1 : Sizes<1280, 256, false>, Centred<NibbleCodes<1>, ScalesAndMinimums, 2, -1, false> {};
struct Q8_0 : Sizes<2048, 128, false>, Centred<ByteCodes, PlainScales, 2, 128, false> {};
struct Iq4Nl : Sizes<1024, 128, false>, Centred<TableCodes, PlainScales, 2, 128, false> {};
struct Q2K : Sizes<512, 320, true>, Centred<PairCodes<0>, Q2KScales, 1, -1, true> {};
struct Q3K : Sizes<768, 224, true>, Centred<PairCodes<1>, Q3KScales, 1, 4, true> {};
struct Q4K : Sizes<1024, 256, true>, Centred<NibbleCodes<0>, PackedPairs, 2, -1, true> {};
struct Q5K : Sizes<1280, 256, true>, Centred<NibbleCodes<1>, PackedPairs, 2, -1, true> {};
struct Q6K : Sizes<1536, 288, true>, Centred<NibbleCodes<2>, Q6KScales, 1, 32, true> {};
struct Iq4Xs : Sizes<1024, 128, true>, Centred<TableCodes, Iq4XsScales, 2, 128, true> {};

/// MLX's affine groups of 128 / kGroups weights.
template <std::uint32_t kGroups, bool kBf16>
struct Affine4 : Sizes<1024, 64 * kGroups, false>,
                 Centred<NibbleCodes<0>, AffineTerms<kGroups, kBf16>, 2, -1, false> {};
template <std::uint32_t kGroups, bool kBf16>
struct Affine8 : Sizes<2048, 64 * kGroups, false>,
                 Centred<WholeByteCodes, AffineTerms<kGroups, kBf16>, 2, -1, false> {};
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
// -------------------------------------------------------------------------------------------------------

/// Where the matrix instructions take weights from: memory, as f16 or bf16, or registers, where they become f16.
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
