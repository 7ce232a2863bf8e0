// Codes of weight records (quant/records.h) to f16 numbers, a fragment of operand A at a time:
//   a0 row g, k 2t 2t+1    a1 row g + 8, same k    a2, a3 the same rows, k + 8        (lane 4g + t)
//
// A code is not converted: its bits, alone in the fraction of a half from bit `place` on, are the f16
// subnormal code * 2^(place - 24), and one multiply-add with the scale makes the weight. Bound by the integer
// pipe, which takes an instruction of a warp every other cycle: one mask for a pair of codes, and a shift for
// the pairs that are not where the mask finds them.
//
// Codes: load(reader, at, lane) -> Raw, the lane's words of half a record whose planes begin at `at`;
//        bits(raw, plane, step, a), k16 step 0..3 of a plane of 64 k; place(step, upper) for rows g or g + 8.
// reader: words4, words2, u32, u16 at a byte offset of the run of codes and row data.
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

/// Where the planes of half a record begin.
struct PlanesAt {
  std::uint32_t first, second;
};

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
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    Raw raw;
    load_words<2>(from, at.first, lane, raw);
    if constexpr (kHigh == 1) from.words2(at.second + lane * 8, raw.w[8], raw.w[9]);
    if constexpr (kHigh == 2) {
      const Words4 words = from.words4(at.second + lane * 16);
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
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    Raw raw;
    load_words<1>(from, at.first, lane, raw);
    if constexpr (kHigh == 1) from.words2(at.second + lane * 8, raw.w[4], raw.w[5]);
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
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    Raw raw;
    load_words<4>(from, at.first, lane, raw);
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

/// The f16 numbers of two half bytes, by the byte that they are: in shared memory each 32 times, a copy for every
/// bank, so that a warp's look-ups never wait for each other. Entries lie 256 bytes apart where there is room: a
/// byte permute then makes the place of a look-up of a byte and the lane, where 128 bytes take a shift and a mask.
struct PairTable {
#if defined(__CUDA_ARCH__)
  std::uint32_t base, stride;  // constants: a load has the first, an address, as its offset
  std::uint32_t column;        // 4 * lane, and in the highest byte what addresses have there

  /// Of byte i of word.
  MLXN_TILE_FN std::uint32_t operator()(std::uint32_t word, int i) const {
    const std::uint32_t at =
        stride == 256 ? sm90::permute(word, column, 0x7604u + (static_cast<std::uint32_t>(i) << 4))
                      : ((i == 0 ? word << 7 : word >> (8 * i - 7)) & 0x7F80u) | column;
    std::uint32_t pair;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(pair) : "r"(at + base));
    return pair;
  }
#else
  const std::uint32_t* pairs;
  MLXN_TILE_FN std::uint32_t operator()(std::uint32_t word, int i) const {
    return pairs[word >> 8 * i & 0xFF];
  }
#endif
};

struct LookUpWords {
  std::uint32_t w[8];
  PairTable table;
};
/// Nibbles that name one of sixteen f16 numbers, rows apart. ValuesT::half(code): its bits.
template <class ValuesT>
struct LookUpCodes {
  using Values = ValuesT;
  static constexpr bool kLooksUp = true;
  static MLXN_TILE_FN constexpr int place(int, int) { return Values::kPlace; }
  using Raw = LookUpWords;

  /// The table's entry of a byte.
  static MLXN_TILE_FN std::uint32_t pair(std::uint32_t byte) {
    return Values::half(byte & 15) | Values::half(byte >> 4) << 16;
  }
  template <class Reader>
  static MLXN_TILE_FN Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    RawWords<8> words;
    load_words<2>(from, at.first, lane, words);
    Raw raw;
    MLXN_TILE_UNROLL
    for (int i = 0; i < 8; ++i) raw.w[i] = words.w[i];
    raw.table = from.table();
    return raw;
  }
  static MLXN_TILE_FN void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
    const std::uint32_t word = raw.w[4 * plane + step];
    a[0] = raw.table(word, 0);
    a[2] = raw.table(word, 1);
    a[1] = raw.table(word, 2);
    a[3] = raw.table(word, 3);
  }
};

/// iq4_nl and iq4_xs: whole numbers times 2^-24.
struct Iq4Values {
  static constexpr int kPlace = 0;
  static MLXN_TILE_FN std::uint32_t half(std::uint32_t code) {
    // Magnitudes.
    const std::uint32_t four = code < 8 ? code < 4 ? 0x4153687Fu : 0x0A162331u : code < 12 ? 0x26190D01u : 0x71594535u;
    return (four >> code % 4 * 8 & 0xFF) | (code < 8 ? 0x8000u : 0u);
  }
};
/// The same numbers times 2^-14.
struct Iq4ValuesLifted {
  static constexpr int kPlace = 10;
  static MLXN_TILE_FN std::uint32_t half(std::uint32_t code) {
    constexpr std::uint32_t k1024 = 0x6400u;
    return sm90::h2_mul(Iq4Values::half(code), k1024) & 0xFFFFu;
  }
};
/// E2M1, value * 2^-14: the nibble's bits are those of the number.
struct E2m1Values {
  static constexpr int kPlace = 10;
  static MLXN_TILE_FN std::uint32_t half(std::uint32_t code) { return (code & 7) << 9 | (code & 8) << 12; }
};

/// Whether codes look pairs up.
template <class Codes>
constexpr bool looks_up() {
  if constexpr (requires { Codes::kLooksUp; }) return true;
  return false;
}

}  // namespace mlxn::tile
