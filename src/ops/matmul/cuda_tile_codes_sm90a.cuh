// Codes of weight records (quant/records.h) to f16 numbers, a fragment of operand A at a time:
//   a0 row g, k 2t 2t+1    a1 row g + 8, same k    a2, a3 the same rows, k + 8        (lane 4g + t)
//
// A code is not converted: its bits, alone in the fraction of a half from bit `place` on, are the f16
// subnormal code * 2^(place - 24), and one multiply-add with the scale makes the weight. Bound by the integer
// pipe, which takes an instruction of a warp every other cycle: one mask for a pair of codes, and a shift for
// the pairs that are not where the mask finds them.
//
// Codes: load(reader, at, lane) -> Raw, the lane's words of half a record whose codes begin at `at`;
//        bits(raw, plane, step, a), k16 step 0..3 of a plane of 64 k; place(step, upper) for rows g or g + 8.
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

struct Words4 {
  std::uint32_t w[4];
};
template <int kCount>
struct RawWords {
  std::uint32_t w[kCount];
};

MLXN_TILE_FN std::uint32_t moved(std::uint32_t word, int left) {
  return left >= 0 ? word << left : word >> -left;
}
MLXN_TILE_FN constexpr std::uint32_t twice(std::uint32_t half) { return half * 0x10001u; }

/// kGroups times four words of a lane.
template <int kGroups, class Reader, int kCount>
MLXN_TILE_FN void load_words(const Reader& from, std::uint32_t at, std::uint32_t lane,
                             RawWords<kCount>& raw) {
  MLXN_TILE_UNROLL
  for (int group = 0; group < kGroups; ++group) {
    const Words4 words = from.words4(at + group * 512 + lane * 16);
    MLXN_TILE_UNROLL
    for (int i = 0; i < 4; ++i) raw.w[4 * group + i] = words.w[i];
  }
}

/// 4 bits a code, and kHigh bits above them from a second plane. kLift: places further up, at the price of a
/// shift for each word, for weights that need the range.
template <int kHigh, int kLift = 0>
struct NibbleCodes {
  static_assert(kHigh == 0 || kLift == 0);
  static MLXN_TILE_FN constexpr int place(int, int upper) { return kLift + 4 * upper; }
  using Raw = RawWords<8 + 2 * kHigh>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    load_words<2>(from, at, lane, raw);
    if constexpr (kHigh == 1) from.words2(at + 1024 + lane * 8, raw.w[8], raw.w[9]);
    if constexpr (kHigh == 2) {
      const Words4 words = from.words4(at + 1024 + lane * 16);
      MLXN_TILE_UNROLL
      for (int i = 0; i < 4; ++i) raw.w[8 + i] = words.w[i];
    }
    return raw;
  }

  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    const std::uint32_t word = raw.w[4 * plane + step];
    const std::uint32_t low = word << kLift;
    const std::uint32_t up = word >> (8 - kLift);
    a[0] = low & twice(0x0Fu << kLift);
    a[1] = low & twice(0xF0u << kLift);
    a[2] = up & twice(0x0Fu << kLift);
    a[3] = up & twice(0xF0u << kLift);
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
  static MLXN_TILE_FN constexpr int place(int step, int upper) { return step % 2 * 4 + upper * 2; }
  using Raw = RawWords<4 + 2 * kHigh>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    load_words<1>(from, at, lane, raw);
    if constexpr (kHigh == 1) from.words2(at + 512 + lane * 8, raw.w[4], raw.w[5]);
    return raw;
  }

  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    const std::uint32_t low = raw.w[2 * plane + step / 2];
    const std::uint32_t up = low >> 8;
    const int base = place(step, 0);
    const std::uint32_t mask = twice(3) << base;
    a[0] = low & mask;
    a[1] = low & mask << 2;
    a[2] = up & mask;
    a[3] = up & mask << 2;
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

/// Bytes, out of the subnormals: the smallest weights of types of 8 bits have the bits of f16.
struct ByteCodes {
  static constexpr int kLift = 14;
  static MLXN_TILE_FN constexpr int place(int, int) { return kLift; }
  using Raw = RawWords<16>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    load_words<4>(from, at, lane, raw);
    return raw;
  }
  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    MLXN_TILE_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      const std::uint32_t word = raw.w[8 * plane + 2 * step + upper];
      constexpr std::uint32_t kFactor = (15u + kLift) * 0x04000400u;  // 2^kLift, twice
      a[upper] = sm90::h2_mul(word & 0x00FF00FFu, kFactor);
      a[upper + 2] = sm90::h2_mul(sm90::permute(word, 0, 0x4341), kFactor);
    }
  }
};

/// Nibbles that stand for the values of iq4_nl and iq4_xs, rows apart: as bytes, 128 more than the value.
struct TableCodes {
  static MLXN_TILE_FN constexpr int place(int, int) { return 0; }
  using Raw = RawWords<8>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    load_words<2>(from, at, lane, raw);
    return raw;
  }
  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    constexpr std::uint32_t kT0 = 0x3f2d1801u, kT1 = 0x766a5d4fu, kT2 = 0xa6998d81u, kT3 = 0xf1d9c5b5u;
    const std::uint32_t word = raw.w[4 * plane + step];
    const std::uint32_t index = word & 0x77777777u;
    const std::uint32_t choice = (word >> 1 & 0x44444444u) | 0x32103210u;
    MLXN_TILE_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      const std::uint32_t at = index >> 16 * upper;
      // k 2t, 2t + 8, 2t + 1, 2t + 9.
      const std::uint32_t values =
          sm90::permute(sm90::permute(kT0, kT1, at), sm90::permute(kT2, kT3, at), choice >> 16 * upper);
      a[upper] = values & 0x00FF00FFu;
      a[upper + 2] = sm90::permute(values, 0, 0x4341);
    }
  }
};

/// Nibbles of E2M1, rows apart: their bits are those of the f16 of value * 2^-14.
struct E2m1Codes {
  using Raw = RawWords<8>;

  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, std::uint32_t at, std::uint32_t lane) {
    Raw raw;
    load_words<2>(from, at, lane, raw);
    return raw;
  }
  static MLXN_TILE_FN void numbers(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    // Half a word for k 2t and k 2t + 1 each: rows g, g with k + 8, rows g + 8, g + 8 with k + 8.
    const std::uint32_t word = sm90::permute(raw.w[4 * plane + step], 0, 0x3120);
    MLXN_TILE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * (i / 2 + i % 2 * 2);  // of the nibble in its half of the word
      a[i] = (moved(word, 9 - at) & 0x0E000E00u) | (moved(word, 12 - at) & 0x80008000u);
    }
  }
};

}  // namespace mlxn::tile
