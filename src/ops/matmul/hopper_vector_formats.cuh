// Weight records (quant/records.h) as operands of the byte matrix instructions: codes, scales and addends of
// every block type. A unit is 16 rows x 128 k: a record, or either half of a large one.
//
// A weight is scale * (code - kCentre) + addend, with scale and addend per 32 k, or per 16 k if kParts is 2.
//
// Codes: what a lane (4 g + t) loads of a unit, and of each step of 16 k the operand words of rows g and
// g + 8: bytes of k 2t, 2t + 8, 2t + 1, 2t + 9 (if kNeighbours 2t, 2t + 1, 2t + 8, 2t + 9). kSecond: whether
// there are second operands, second_step(), to be multiplied by themselves: 16: with sums of their own for
// every 16 k, which join() adds to the others; 32: with the same sums, all bytes signed. A word may hold its
// codes times factor(part, upper), which saves shifts; the sums are integers, and the scale undoes it. If
// kPairs, the word of rows g is q + 16 q' with q' of row g + 8, and the sums of rows g + 8 have to be taken off.
// load() is given the unit's planes.
//
// Constants: what either wants to have in registers throughout; terms() and the steps are given theirs.
//
// Rows: Head is what a lane reads of the row data once per unit, terms() what it makes of that for a block of
// 32 k (0..3) of the unit; `half` says which one of the record the unit is. `rows` is the row data.
//
// Measured on an H200: a scheduler takes 2 cycles for a byte permute, a shift or logic (one pipe), 2 for a product
// of 32 bits (another), 4 for its upper half, 6 for a matrix instruction of 32 k, 4 for one of 16 (24 and 17 until
// its sums can be used).
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda_blocks/ptx.cuh"
#include "quant/codec.h"
#include "quant/records.h"

namespace mlxn::sm90 {

using quant::RecordFormat;

template <class T>
__device__ __forceinline__ T load_as(const std::uint8_t* p) {
  return *reinterpret_cast<const T*>(p);
}
__device__ __forceinline__ std::uint32_t load_u16(const std::uint8_t* p) { return load_as<std::uint16_t>(p); }

/// `from` and `to` are places of the same bit: constants where it matters.
__device__ __forceinline__ std::uint32_t move_bit(std::uint32_t word, int from, int to) {
  return from < to ? word << (to - from) : word >> (from - to);
}

/// Byte i of a word less kBias, without a conversion: 2^23 plus a byte is a float with the byte at its end.
template <int kBias>
__device__ __forceinline__ float byte_less(std::uint32_t word, std::uint32_t i) {
  return __uint_as_float(permute_bytes(word, 0x4b000000u, 0x7440u + i)) - (8388608.0f + kBias);
}
/// The same of a number below 2^23.
template <int kBias>
__device__ __forceinline__ float small_less(std::uint32_t number) {
  return __uint_as_float(number | 0x4b000000u) - (8388608.0f + kBias);
}

__device__ __forceinline__ float half_of(std::uint32_t word, int upper) {
  return f16_to_f32(static_cast<std::uint16_t>(upper ? word >> 16 : word));
}

template <int kCount>
__device__ __forceinline__ void load_words(const std::uint8_t* plane, std::uint32_t lane,
                                           std::uint32_t (&w)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {
    const uint4 q = load_as<uint4>(plane + i * 512 + lane * 16);
    w[4 * i] = q.x, w[4 * i + 1] = q.y, w[4 * i + 2] = q.z, w[4 * i + 3] = q.w;
  }
}

// ---- codes -----------------------------------------------------------------------------------------------

struct Operands {
  std::uint32_t low, high;  // rows g, rows g + 8
};

/// What steps or terms read of registers that are filled once.
struct NoConstants {};

struct PlainFactor {
  static constexpr bool kPairs = false;
  static constexpr int kSecond = 0;
  using Constants = NoConstants;
  static __device__ constexpr int factor(int, int) { return 1; }
};

struct NibbleCodes {
  static constexpr bool kPairs = true;
  static constexpr int kSecond = 0;
  using Constants = NoConstants;
  static __device__ constexpr int factor(int, int upper) { return upper ? 16 : 1; }
  std::uint32_t w[8];

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t*, std::uint32_t lane) {
    load_words(codes, lane, w);
  }
  __device__ __forceinline__ Operands step(int s, const NoConstants&) const { return {w[s], w[s] & 0xf0f0f0f0u}; }
};

struct ByteCodes : PlainFactor {
  std::uint32_t w[16];

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t*, std::uint32_t lane) {
    load_words(codes, lane, w);
  }
  __device__ __forceinline__ Operands step(int s, const NoConstants&) const { return {w[2 * s], w[2 * s + 1]}; }
};

/// A second plane of bits is multiplied by itself: masks alone make its operands, each times a power of two,
/// where adding its bits to the codes would take shifts. join() adds its sums to those of the first plane.
/// upper: sums of the second plane by step of 16 k of the block, and row.
struct NibbleBitCodes : NibbleCodes {
  static constexpr int kSecond = 16;
  std::uint32_t bits[2];

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t* second,
                                       std::uint32_t lane) {
    load_words(codes, lane, w);
    const uint2 b = load_as<uint2>(second + lane * 8);
    bits[0] = b.x, bits[1] = b.y;
  }
  __device__ __forceinline__ Operands second_step(int s, const NoConstants&) const {
    const std::uint32_t b = bits[s / 4], at = 0x01010101u << s % 4 * 2;
    return {b & at, b & at << 1};
  }
  // Bits times 2^(4 (block % 2) + 2 step + upper row), for 16.
  static __device__ __forceinline__ void join(std::int32_t (&sums)[1][2], const std::int32_t (&upper)[2][2],
                                              std::uint32_t block) {
    const std::int32_t unit = block % 2 == 0 ? 16 : 1;
    sums[0][0] += (upper[0][0] * 4 + upper[1][0]) * unit >> 2;  // exact
    sums[0][1] += (upper[0][1] * 4 + upper[1][1]) * (2 * unit);
  }
};

struct NibblePairCodes : NibbleCodes {
  static constexpr int kSecond = 16;
  std::uint32_t pairs[4];

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t* second,
                                       std::uint32_t lane) {
    load_words(codes, lane, w);
    load_words(second, lane, pairs);
  }
  __device__ __forceinline__ Operands second_step(int s, const NoConstants&) const {
    const std::uint32_t p = pairs[s / 2];
    return s % 2 ? Operands{p & 0x30303030u, p & 0xc0c0c0c0u} : Operands{p & 0x03030303u, p & 0x0c0c0c0cu};
  }
  // Pairs times 4^(2 step + upper row), for 16.
  static __device__ __forceinline__ void join(std::int32_t (&sums)[2][2], const std::int32_t (&upper)[2][2],
                                              std::uint32_t) {
    sums[0][0] += upper[0][0] * 16;
    sums[0][1] += upper[0][1] * 64;
    sums[1][0] += upper[1][0];
    sums[1][1] += upper[1][1] * 4;
  }
};

struct PairCodes {
  static constexpr bool kPairs = false;
  static constexpr int kSecond = 0;
  using Constants = NoConstants;
  static __device__ constexpr int factor(int part, int upper) { return (part ? 16 : 1) * (upper ? 4 : 1); }
  std::uint32_t w[4];

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t*, std::uint32_t lane) {
    load_words(codes, lane, w);
  }
  __device__ __forceinline__ Operands step(int s, const NoConstants&) const {
    const std::uint32_t p = w[s / 2];
    return s % 2 ? Operands{p & 0x30303030u, p & 0xc0c0c0c0u} : Operands{p & 0x03030303u, p & 0x0c0c0c0cu};
  }
};

struct PairBitCodes : PairCodes {
  static constexpr int kSecond = 16;
  std::uint32_t bits[2];

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t* second,
                                       std::uint32_t lane) {
    load_words(codes, lane, w);
    const uint2 b = load_as<uint2>(second + lane * 8);
    bits[0] = b.x, bits[1] = b.y;
  }
  __device__ __forceinline__ Operands second_step(int s, const NoConstants&) const {
    const std::uint32_t b = bits[s / 4], at = 0x01010101u << s % 4 * 2;
    return {b & at, b & at << 1};
  }
  // Bits times 2^(4 (block % 2) + 2 step + upper row), for 4.
  static __device__ __forceinline__ void join(std::int32_t (&sums)[2][2], const std::int32_t (&upper)[2][2],
                                              std::uint32_t block) {
    const std::int32_t unit = block % 2 == 0 ? 16 : 1;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
#pragma unroll
      for (int u = 0; u < 2; ++u) sums[step][u] += upper[step][u] * (unit << (2 * step + u)) >> 2;  // exact
    }
  }
};

/// Nibbles that name one of 16 whole numbers: a word has the four of row g in its lower half and those of row
/// g + 8 in its upper one (RecordPlane::rows_apart), as selectors of byte permutes. A selector's highest bit
/// asks for the byte's sign, 0 or -1, instead: so one permute gives numbers for the lower eight names and signs
/// for the others, a second, with all bits inverted, the other way round. Both are multiplied and added up;
/// either table takes off its numbers what the signs of the other add to them.
template <const std::int8_t (&kValues)[16]>
struct LookUpCodes : PlainFactor {
  static constexpr int kSecond = 32;
  std::uint32_t w[8];

  struct Tables {
    std::uint32_t lower[2] = {}, upper[2] = {};  // upper: by inverted name
  };
  static constexpr Tables tables() {
    Tables out;
    for (int i = 0; i < 8; ++i) {
      for (int signs = 0; signs < 4; ++signs) {
        const bool lower_sign = signs % 2 != 0, upper_sign = signs / 2 != 0;
        const int lower = kValues[i] + upper_sign, upper = kValues[i + 8] + lower_sign;
        if (lower < -128 || upper < -128 || lower > 127 || upper > 127) continue;
        if ((lower < 0) != lower_sign || (upper < 0) != upper_sign) continue;
        out.lower[i / 4] |= (static_cast<std::uint32_t>(lower) & 0xffu) << i % 4 * 8;
        out.upper[1 - i / 4] |= (static_cast<std::uint32_t>(upper) & 0xffu) << (3 - i % 4) * 8;
        break;
      }
    }
    return out;
  }
  static constexpr Tables kTables = tables();

  __device__ __forceinline__ void load(const std::uint8_t* codes, const std::uint8_t*, std::uint32_t lane) {
    load_words(codes, lane, w);
  }
  struct Constants {
    std::uint32_t lower[2], upper[2], minus_one;
    __device__ __forceinline__ Constants()
        : lower{in_register(kTables.lower[0]), in_register(kTables.lower[1])},
          upper{in_register(kTables.upper[0]), in_register(kTables.upper[1])},
          minus_one(in_register(~0u)) {}
  };
  __device__ __forceinline__ Operands step(int s, const Constants& of) const {
    return {permute_bytes(of.lower[0], of.lower[1], w[s]), permute_bytes(of.lower[0], of.lower[1], w[s] >> 16)};
  }
  __device__ __forceinline__ Operands second_step(int s, const Constants& of) const {
    return {permute_bytes(of.upper[0], of.upper[1], inverted(w[s], of)),
            permute_bytes(of.upper[0], of.upper[1], inverted(w[s] >> 16, of))};
  }

 private:
  /// As a product: the pipe of byte permutes, shifts and logic is the busiest.
  static __device__ __forceinline__ std::uint32_t inverted(std::uint32_t word, const Constants& of) {
    return multiply_add(word, of.minus_one, of.minus_one);
  }
};

// ---- rows ------------------------------------------------------------------------------------------------

template <int kParts>
struct Terms {
  float scale[kParts][2], addend[kParts][2];  // [part][row g, row g + 8]
};

struct NoHead {
  __device__ __forceinline__ void load(const std::uint8_t*, std::uint32_t, std::uint32_t) {}
};

/// d of four blocks in f16.
struct RowsD {
  static constexpr int kParts = 1;
  using Constants = NoConstants;
  static constexpr bool kAdds = false;
  using Head = NoHead;
  static __device__ __forceinline__ void terms(const Head&, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t, std::uint32_t block, Terms<1>& out,
                                               const NoConstants&) {
#pragma unroll
    for (int u = 0; u < 2; ++u)
      out.scale[0][u] = f16_to_f32(static_cast<std::uint16_t>(load_u16(rows + g * 16 + u * 8 + block * 2)));
  }
};

/// d and the addend of four blocks.
struct RowsDM {
  static constexpr int kParts = 1;
  using Constants = NoConstants;
  static constexpr bool kAdds = true;
  using Head = NoHead;
  static __device__ __forceinline__ void terms(const Head&, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t, std::uint32_t block, Terms<1>& out,
                                               const NoConstants&) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const std::uint32_t d_m = load_as<std::uint32_t>(rows + g * 32 + u * 16 + block * 4);
      out.scale[0][u] = half_of(d_m, 0);
      out.addend[0][u] = half_of(d_m, 1);
    }
  }
};

/// Scale and addend of kGroups groups, in f16 or bf16.
template <std::uint32_t kGroups, bool kBf16>
struct RowsAffine {
  static constexpr int kParts = 1;
  using Constants = NoConstants;
  static constexpr bool kAdds = true;
  using Head = NoHead;
  static __device__ __forceinline__ void terms(const Head&, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t, std::uint32_t block, Terms<1>& out,
                                               const NoConstants&) {
#pragma unroll
    for (std::uint32_t u = 0; u < 2; ++u) {
      const std::uint32_t both =
          load_as<std::uint32_t>(rows + ((g * 2 + u) * kGroups + block / (4 / kGroups)) * 4);
      out.scale[0][u] = kBf16 ? __uint_as_float(both << 16) : half_of(both, 0);
      out.addend[0][u] = kBf16 ? __uint_as_float(both & 0xffff0000u) : half_of(both, 1);
    }
  }
};

/// Exponents of four blocks: 2^(e - 127), of e = 0 a subnormal, of 255 infinity. The codes are twice the values,
/// which the scales of x undo (kOfX). A product instead of a shift, for the same reason as in look-ups.
struct RowsE8M0 {
  static constexpr int kParts = 1;
  static constexpr bool kAdds = false;
  static constexpr float kOfX = 0.5f;
  using Head = NoHead;
  struct Constants {
    std::uint32_t one;
    __device__ __forceinline__ Constants() : one(in_register(1u << 23)) {}
  };
  static __device__ __forceinline__ void terms(const Head&, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t, std::uint32_t block, Terms<1>& out,
                                               const Constants& of) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const auto bits = static_cast<std::int32_t>(multiply_add(rows[g * 8 + u * 4 + block], of.one, 0));
      out.scale[0][u] = __int_as_float(max(bits, 1 << 22));
    }
  }
};

/// q4_K and q5_K: d, dmin and eight 6-bit pairs, of which the first four lie in bits 0..5 of the bytes of two
/// words; the others have their lower bits in the third word, the upper ones in bits 6 and 7 of the first
/// two.
struct RowsK4 {
  static constexpr int kParts = 1;
  using Constants = NoConstants;
  static constexpr bool kAdds = true;
  struct Head {
    float d[2], minus_dmin[2];
    std::uint32_t sc[2], mn[2];  // bytes of four blocks

    __device__ __forceinline__ void load(const std::uint8_t* rows, std::uint32_t g, std::uint32_t half) {
      const std::uint32_t lower = half ? 0x0f0f0f0fu : 0x3f3f3f3fu, upper = half ? 0x30303030u : 0;
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const uint4 h = load_as<uint4>(rows + g * 32 + u * 16);
        d[u] = half_of(h.x, 0);
        minus_dmin[u] = -half_of(h.x, 1);
        sc[u] = ((half ? h.w : h.y) & lower) | (h.y >> 2 & upper);
        mn[u] = ((half ? h.w >> 4 : h.z) & lower) | (h.z >> 2 & upper);
      }
    }
  };
  static __device__ __forceinline__ void terms(const Head& head, const std::uint8_t*, std::uint32_t,
                                               std::uint32_t, std::uint32_t block, Terms<1>& out,
                                               const NoConstants&) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      out.scale[0][u] = head.d[u] * byte_less<0>(head.sc[u], block);
      out.addend[0][u] = head.minus_dmin[u] * byte_less<0>(head.mn[u], block);
    }
  }
};

/// d, and eight 6-bit scales less 32: nibbles in the second word, upper bits in the upper half of the first.
struct RowsIq4Xs {
  static constexpr int kParts = 1;
  using Constants = NoConstants;
  static constexpr bool kAdds = false;
  struct Head {
    uint4 h;
    __device__ __forceinline__ void load(const std::uint8_t* rows, std::uint32_t g, std::uint32_t) {
      h = load_as<uint4>(rows + g * 16);
    }
  };
  static __device__ __forceinline__ void terms(const Head& head, const std::uint8_t*, std::uint32_t,
                                               std::uint32_t half, std::uint32_t block, Terms<1>& out,
                                               const NoConstants&) {
    const std::uint32_t at = half * 4 + block;
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const std::uint32_t d_high = u ? head.h.z : head.h.x, low = u ? head.h.w : head.h.y;
      const std::uint32_t sc = (low >> 4 * at & 15u) | (d_high >> (16 + 2 * at) & 3u) << 4;
      out.scale[0][u] = half_of(d_high, 0) * small_less<32>(sc);
    }
  }
};

/// d of both rows, kAt bytes into the row data.
template <int kAt>
struct HeadD {
  float d[2];
  __device__ __forceinline__ void load(const std::uint8_t* rows, std::uint32_t g, std::uint32_t) {
    const std::uint32_t both = load_as<std::uint32_t>(rows + kAt + g * 4);
    d[0] = half_of(both, 0), d[1] = half_of(both, 1);
  }
};

/// d, and a signed byte per 16 k.
struct RowsQ6K {
  static constexpr int kParts = 2;
  using Constants = NoConstants;
  static constexpr bool kAdds = false;
  using Head = HeadD<256>;
  static __device__ __forceinline__ void terms(const Head& head, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t half, std::uint32_t block, Terms<2>& out,
                                               const NoConstants&) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const std::uint32_t sc = load_u16(rows + g * 32 + u * 16 + half * 8 + block * 2) ^ 0x8080u;
#pragma unroll
      for (int part = 0; part < 2; ++part) out.scale[part][u] = head.d[u] * byte_less<128>(sc, part);
    }
  }
};

/// d, and 6-bit scales less 32 per 16 k: nibbles in eight bytes, low ones for the first half; pairs of bits
/// in four more, those of scales s and s + 4 beside each other.
struct RowsQ3K {
  static constexpr int kParts = 2;
  using Constants = NoConstants;
  static constexpr bool kAdds = false;
  using Head = HeadD<192>;
  /// Both of a block, in bytes, with 32 more.
  static __device__ __forceinline__ std::uint32_t scales(const std::uint8_t* row, std::uint32_t half,
                                                         std::uint32_t block) {
    const std::uint32_t low = load_u16(row + block * 2) >> 4 * half & 0x0f0fu;
    const std::uint32_t high = load_u16(row + 8 + (block & 1) * 2) >> (4 * half + (block & 2)) & 0x0303u;
    return low | high << 4;
  }
  static __device__ __forceinline__ void terms(const Head& head, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t half, std::uint32_t block, Terms<2>& out,
                                               const NoConstants&) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const std::uint32_t sc = scales(rows + g * 24 + u * 12, half, block);
#pragma unroll
      for (int part = 0; part < 2; ++part) out.scale[part][u] = head.d[u] * byte_less<32>(sc, part);
    }
  }
};

/// d, dmin, and a byte per 16 k: scale in its low nibble, minimum in its high one.
struct RowsQ2K {
  static constexpr int kParts = 2;
  using Constants = NoConstants;
  static constexpr bool kAdds = true;
  struct Head {
    float d[2], minus_dmin[2];
    __device__ __forceinline__ void load(const std::uint8_t* rows, std::uint32_t g, std::uint32_t) {
      const uint2 both = load_as<uint2>(rows + 256 + g * 8);
      d[0] = half_of(both.x, 0), minus_dmin[0] = -half_of(both.x, 1);
      d[1] = half_of(both.y, 0), minus_dmin[1] = -half_of(both.y, 1);
    }
  };
  static __device__ __forceinline__ void terms(const Head& head, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t half, std::uint32_t block, Terms<2>& out,
                                               const NoConstants&) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const std::uint32_t both = load_u16(rows + g * 32 + u * 16 + half * 8 + block * 2);
      const std::uint32_t sc = both & 0x0f0fu, mn = both >> 4 & 0x0f0fu;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        out.scale[part][u] = head.d[u] * byte_less<0>(sc, part);
        out.addend[part][u] = head.minus_dmin[u] * byte_less<0>(mn, part);
      }
    }
  }
};

// ---- types -----------------------------------------------------------------------------------------------

/// What the kernel wants to know of a type.
template <DType kTypeOf, class CodesOf, class RowsOf, int kCentreOf>
struct VectorFormat {
  static constexpr DType kType = kTypeOf;
  using Codes = CodesOf;
  using Rows = RowsOf;
  struct Constants {
    typename Codes::Constants codes;
    typename Rows::Constants rows;
  };
  static constexpr int kCentre = kCentreOf;
  static constexpr int kParts = Rows::kParts;
  static constexpr bool kAdds = Rows::kAdds, kPairs = Codes::kPairs;
  /// What the scales of x are multiplied by.
  static constexpr float kOfX = [] {
    if constexpr (requires { Rows::kOfX; }) return Rows::kOfX;
    return 1.0f;
  }();
  static constexpr int kSecond = Codes::kSecond;
  static constexpr RecordFormat kRecord = quant::record_format(kType);
  /// Whether a word's bytes are of k 2t, 2t + 1, 2t + 8, 2t + 9.
  static constexpr bool kNeighbours = kRecord.planes[0].rows_apart;
  static constexpr std::uint32_t kRecordBytes = kRecord.bytes(), kRowsAt = kRecord.area_offset(0);
  template <std::uint32_t kHalf, std::uint32_t kPlane>
  static constexpr std::uint32_t kPlaneAt = kRecord.plane_offset(kHalf, kPlane);
  static constexpr std::uint32_t kHalves = kRecord.elems / quant::kRecordHalf;
};

using Iq4Codes = LookUpCodes<quant::kIq4Values>;
using E2m1Codes = LookUpCodes<quant::kE2m1Doubled>;

namespace vector_formats {
using q4_0 = VectorFormat<DType::q4_0, NibbleCodes, RowsD, 8>;
using q4_1 = VectorFormat<DType::q4_1, NibbleCodes, RowsDM, 0>;
using q5_0 = VectorFormat<DType::q5_0, NibbleBitCodes, RowsD, 16>;
using q5_1 = VectorFormat<DType::q5_1, NibbleBitCodes, RowsDM, 0>;
using q8_0 = VectorFormat<DType::q8_0, ByteCodes, RowsD, 128>;
using q2_K = VectorFormat<DType::q2_K, PairCodes, RowsQ2K, 0>;
using q3_K = VectorFormat<DType::q3_K, PairBitCodes, RowsQ3K, 4>;
using q4_K = VectorFormat<DType::q4_K, NibbleCodes, RowsK4, 0>;
using q5_K = VectorFormat<DType::q5_K, NibbleBitCodes, RowsK4, 0>;
using q6_K = VectorFormat<DType::q6_K, NibblePairCodes, RowsQ6K, 32>;
using iq4_nl = VectorFormat<DType::iq4_nl, Iq4Codes, RowsD, 0>;
using iq4_xs = VectorFormat<DType::iq4_xs, Iq4Codes, RowsIq4Xs, 0>;
using mxfp4 = VectorFormat<DType::mxfp4, E2m1Codes, RowsE8M0, 0>;

template <DType kType>
using Affine = VectorFormat<
    kType, std::conditional_t<affine_info(kType)->bits == 4, NibbleCodes, ByteCodes>,
    RowsAffine<quant::kRecordHalf / affine_info(kType)->group, affine_info(kType)->scales == DType::bf16>, 0>;
using affine4_g64 = Affine<DType::affine4_g64>;
using affine4_g128 = Affine<DType::affine4_g128>;
using affine8_g32 = Affine<DType::affine8_g32>;
using affine8_g64 = Affine<DType::affine8_g64>;
using affine8_g128 = Affine<DType::affine8_g128>;
using affine4_g32_bf16 = Affine<DType::affine4_g32_bf16>;
using affine4_g64_bf16 = Affine<DType::affine4_g64_bf16>;
using affine4_g128_bf16 = Affine<DType::affine4_g128_bf16>;
using affine8_g32_bf16 = Affine<DType::affine8_g32_bf16>;
using affine8_g64_bf16 = Affine<DType::affine8_g64_bf16>;
using affine8_g128_bf16 = Affine<DType::affine8_g128_bf16>;
}  // namespace vector_formats

}  // namespace mlxn::sm90
