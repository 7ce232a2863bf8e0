#pragma once

// Decoding of weights in the portable kernels: the exact f32 values of quant/codec.h, bit for bit but for the sign of a zero.
//
// A row is read in chunks of 32 elements, one chunk per thread, so that threads beside each other load bytes beside each
// other. A chunk is two halves of 16 elements that lie beside each other, each with one scale; where the halves begin in the
// block is the format's matter, since the bytes that hold a chunk's codes are 16 that lie beside each other. The 16 codes of a
// half come as four words of four unsigned bytes, to be diminished by kZero.
//
// A format is a type:
//   kElems, kChunks                elements and chunks of a block
//   kZero, kPlace, kFold, kAdds    see Coefficients
//   Chunk                          what a thread loads of a chunk: raw words, and scale and addend of each half
//   load<kWide>(w, first, block, chunk)   of block `first` + `block` of the matrix
//   start(chunk, half)             the half's first element in the block
//   codes(chunk, half, quad)       four codes
// kWide loads fields by words that are aligned for it; otherwise fields may begin at any address.
//
// No multiplication or addition here rounds but the last one of `scale * q + addend`, so that it does not matter whether a
// compiler contracts them: scales have at most 17 significant bits, and kZero is chosen with kPlace such that what is
// subtracted fits an f32. Scales are finite (quant::first_invalid_block finds others).

#include "portable/dialect.h"
#include "quant/gpu_weight.h"

namespace mlxn {
namespace gpu {

/// Elements of a chunk and of its halves.
constexpr uint32_t kChunkElems = 32;
constexpr uint32_t kHalfElems = 16;

// ---- loads ------------------------------------------------------------------------------------------------------------

/// A field of block `first` + `block` of the matrix: the first block of a row, and one in the row, whose bytes are below 2^32.
MLXN_FN MLXN_GLOBAL const uint8_t* field_at(const quant::GpuWeight& w, uint32_t field, int64_t first, uint32_t block) {
  const uint32_t step = w.step[field];
  return w.data.ptr + (w.offset[field] + first * int64_t(step)) + block * step;
}
template <bool kWide>
MLXN_FN uint32_t field_u16(const quant::GpuWeight& w, MLXN_GLOBAL const uint8_t* p) {
  return kWide || w.even ? load_u16(p) : load_u16_1(p);
}
template <bool kWide>
MLXN_FN uint32_t field_u32(const quant::GpuWeight& w, MLXN_GLOBAL const uint8_t* p) {
  if constexpr (kWide) return load_u32(p);
  else return w.even ? load_u32_2(p) : load_u32_1(p);
}
template <bool kWide>
MLXN_FN Words4 field_words4(const quant::GpuWeight& w, MLXN_GLOBAL const uint8_t* p) {
  if constexpr (kWide) {
    return load_words4(p);
  } else {
    Words4 v;
    MLXN_UNROLL
    for (uint32_t i = 0; i < 4; ++i) v.w[i] = field_u32<false>(w, p + 4 * i);
    return v;
  }
}

// ---- from codes to weights --------------------------------------------------------------------------------------------

/// Byte i of `codes` in the fraction of a number f = 1 + q * 2^(kPlace - 23).
template <uint32_t kPlace>
MLXN_FN float place(uint32_t codes, uint32_t i) {
  constexpr uint32_t kOne = 0x3f800000u;
  const uint32_t at = 8 * i;
  const uint32_t moved = at < kPlace ? codes << (kPlace - at) : codes >> (at - kPlace);
  // Seven bits fit above place 16.
  return float_from_bits((moved & (kPlace == 16 ? 0x7fu << 16 : 0xffu << kPlace)) | kOne);
}

/// What makes a weight of a code in one half of a chunk: (q - kZero) * scale, folded into one multiply-add of f if kFold says
/// that its constants are exact, else in two steps, the second of which adds the addend if kAdds.
struct Coefficients {
  float a, b;
};
template <class F>
MLXN_FN Coefficients coefficients(float scale, float addend) {
  constexpr uint32_t kUnit = 1u << (23 - F::kPlace);
  Coefficients c;
  c.a = F::kFold ? scale * float(kUnit) : scale;
  c.b = F::kFold ? -scale * float(kUnit + F::kZero) : addend;
  return c;
}
template <class F>
MLXN_FN float decode(uint32_t codes, uint32_t i, Coefficients c) {
  constexpr uint32_t kUnit = 1u << (23 - F::kPlace);
  const float f = place<F::kPlace>(codes, i);
  if (F::kFold) return fma(f, c.a, c.b);
  const float q = fma(f, float(kUnit), -float(kUnit + F::kZero));
  return F::kAdds ? fma(q, c.a, c.b) : q * c.a;
}

/// Bytes of four words as a table of 16, by the indices in the bytes of `at`.
MLXN_FN uint32_t look_up(uint32_t at, uint32_t t0, uint32_t t1, uint32_t t2, uint32_t t3) {
  const uint32_t pairs = (at | at >> 4) & 0x00ff00ffu;
  const uint32_t s = (pairs | pairs >> 8) & 0xffffu;  // the indices as selectors
  return byte_permute(byte_permute(t0, t1, s), byte_permute(t2, t3, s), 0x3210u | (s & 0x8888u) >> 1);
}

MLXN_FN uint32_t nibbles(uint32_t word, uint32_t half) { return (half == 0 ? word : word >> 4) & 0x0f0f0f0fu; }
MLXN_FN uint32_t bit_pairs(uint32_t word, uint32_t shift) { return word >> shift & 0x03030303u; }
MLXN_FN uint32_t single_bits(uint32_t word, uint32_t shift) { return word >> shift & 0x01010101u; }
MLXN_FN float half_of(uint32_t word, uint32_t upper) { return f16_to_float(uint16_t(upper ? word >> 16 : word)); }

// ---- blocks of 32 elements ----------------------------------------------------------------------------------------------
// Their nibbles are split in halves: the halves of a chunk are those of the block.

struct Block32 {
  static constexpr uint32_t kElems = 32, kChunks = 1;
  static MLXN_FN uint32_t start(uint32_t, uint32_t half) { return kHalfElems * half; }
};

struct ScaledNibbles {
  Words4 q;
  float scale[2], addend[2];
};

template <uint32_t kZeroCode, bool kTable>
struct NibblesOf32 : Block32 {  // q4_0 and iq4_nl
  static constexpr uint32_t kZero = kTable ? 128 : kZeroCode, kPlace = kTable ? 8 : 16;
  static constexpr bool kFold = true, kAdds = false;
  typedef ScaledNibbles Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block));
    c.scale[0] = c.scale[1] = f16_to_float(uint16_t(field_u16<kWide>(w, field_at(w, 0, first, block))));
    c.addend[0] = c.addend[1] = 0.0f;
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    const uint32_t q = nibbles(c.q.w[quad], half);
    // The values of IQ4_NL and IQ4_XS plus 128.
    return kTable ? look_up(q, 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u) : q;
  }
};
typedef NibblesOf32<8, false> Q4_0;
typedef NibblesOf32<128, true> Iq4Nl;

struct Q4_1 : Block32 {
  static constexpr uint32_t kZero = 0, kPlace = 16;
  static constexpr bool kFold = false, kAdds = true;
  typedef ScaledNibbles Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block));
    const uint32_t d_m = field_u32<kWide>(w, field_at(w, 0, first, block));
    c.scale[0] = c.scale[1] = half_of(d_m, 0);
    c.addend[0] = c.addend[1] = half_of(d_m, 1);
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) { return nibbles(c.q.w[quad], half); }
};

struct Mxfp4 : Block32 {  // codes are twice the values of E2M1 plus 16, and the scale is halved
  static constexpr uint32_t kZero = 16, kPlace = 16;
  static constexpr bool kFold = false, kAdds = false;  // scales reach 2^127: they take no factor
  typedef ScaledNibbles Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block));
    const uint32_t e = *field_at(w, 0, first, block);
    c.scale[0] = c.scale[1] = float_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    c.addend[0] = c.addend[1] = 0.0f;
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return look_up(nibbles(c.q.w[quad], half), 0x13121110u, 0x1c181614u, 0x0d0e0f10u, 0x04080a0cu);
  }
};

struct FiveBits {
  Words4 q;
  uint32_t high;  ///< bit i is bit 4 of element i
  float scale[2], addend[2];
};
/// Bit 4 of four elements, at its place in each byte.
MLXN_FN uint32_t fifth_bits(uint32_t high, uint32_t half, uint32_t quad) {
  return (high >> (kHalfElems * half + 4 * quad) & 15u) * 0x02040810u & 0x10101010u;
}

struct Q5_0 : Block32 {
  static constexpr uint32_t kZero = 16, kPlace = 16;
  static constexpr bool kFold = true, kAdds = false;
  typedef FiveBits Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 2, first, block));
    c.high = field_u32<kWide>(w, field_at(w, 1, first, block));
    c.scale[0] = c.scale[1] = f16_to_float(uint16_t(field_u16<kWide>(w, field_at(w, 0, first, block))));
    c.addend[0] = c.addend[1] = 0.0f;
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return nibbles(c.q.w[quad], half) | fifth_bits(c.high, half, quad);
  }
};

struct Q5_1 : Block32 {
  static constexpr uint32_t kZero = 0, kPlace = 16;
  static constexpr bool kFold = false, kAdds = true;
  typedef FiveBits Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block));
    MLXN_GLOBAL const uint8_t* head = field_at(w, 0, first, block);
    const uint32_t d_m = field_u32<kWide>(w, head);
    c.high = field_u32<kWide>(w, head + 4);
    c.scale[0] = c.scale[1] = half_of(d_m, 0);
    c.addend[0] = c.addend[1] = half_of(d_m, 1);
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return nibbles(c.q.w[quad], half) | fifth_bits(c.high, half, quad);
  }
};

struct Q8_0 : Block32 {
  static constexpr uint32_t kZero = 128, kPlace = 8;
  static constexpr bool kFold = true, kAdds = false;
  struct Chunk {
    Words4 q[2];
    float scale[2], addend[2];
  };

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    Chunk c;
    MLXN_GLOBAL const uint8_t* q = field_at(w, 1, first, block);
    c.q[0] = field_words4<kWide>(w, q);
    c.q[1] = field_words4<kWide>(w, q + kHalfElems);
    c.scale[0] = c.scale[1] = f16_to_float(uint16_t(field_u16<kWide>(w, field_at(w, 0, first, block))));
    c.addend[0] = c.addend[1] = 0.0f;
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return c.q[half].w[quad] ^ 0x80808080u;  // signed bytes plus 128
  }
};

/// Groups of any size and scales of any type, by what the launch says of them: a chunk is 32 elements of a group and counts as a
/// block to whoever reads them.
template <uint32_t kBits>
struct Affine : Block32 {
  static constexpr uint32_t kZero = 0, kPlace = kBits == 8 ? 8 : 16;
  static constexpr bool kFold = false, kAdds = true;
  struct Chunk {
    Words4 q[kBits / 4];
    float scale[2], addend[2];
  };

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t) {
    const uint32_t group = block >> w.group_shift, part = block & ((1u << w.group_shift) - 1);
    Chunk c;
    MLXN_GLOBAL const uint8_t* q = field_at(w, 1, first, group) + part * (4 * kBits);
    MLXN_UNROLL
    for (uint32_t i = 0; i < kBits / 4; ++i) c.q[i] = field_words4<kWide>(w, q + 16 * i);
    MLXN_GLOBAL const uint8_t* pair = field_at(w, 0, first, group);
    const uint32_t both = field_u32<kWide>(w, pair);
    float scale, addend;
    if (w.scale_type == quant::kElementF16) scale = half_of(both, 0), addend = half_of(both, 1);
    else if (w.scale_type == quant::kElementBf16) scale = float_from_bits(both << 16), addend = float_from_bits(both & 0xffff0000u);
    else scale = float_from_bits(both), addend = float_from_bits(field_u32<kWide>(w, pair + 4));
    c.scale[0] = c.scale[1] = scale;
    c.addend[0] = c.addend[1] = addend;
    return c;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return kBits == 8 ? c.q[half * (kBits / 8)].w[quad] : nibbles(c.q[0].w[quad], half);
  }
};

// ---- blocks of 256 elements ---------------------------------------------------------------------------------------------
// Chunk c of eight: its 16 bytes of codes follow those of chunk c - 1, but where two chunks share them.

struct Block256 {
  static constexpr uint32_t kElems = 256, kChunks = 8;
};

/// Of Q2_K and Q3_K: four runs of 32 elements lie in the bit pairs of 32 bytes. A chunk is 16 of these bytes and two of the
/// four runs.
struct PairChunk {
  uint32_t part, pairs, side;  ///< 128 elements, the lower or the upper two bit pairs, the first or the last 16 bytes

  static MLXN_FN PairChunk of(uint32_t chunk) {
    PairChunk p;
    p.part = chunk >> 2;
    p.pairs = chunk >> 1 & 1;
    p.side = chunk & 1;
    return p;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) {
    return (chunk >> 1) * 64 + 32 * half + (chunk & 1) * kHalfElems;
  }
};

struct Q2K : Block256 {
  static constexpr uint32_t kZero = 0, kPlace = 16;
  static constexpr bool kFold = false, kAdds = true;
  typedef ScaledNibbles Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t chunk) {
    const PairChunk at = PairChunk::of(chunk);
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block) + 32 * at.part + kHalfElems * at.side);
    MLXN_UNROLL
    for (uint32_t i = 0; i < 4; ++i) c.q.w[i] >>= 4 * at.pairs;
    const uint32_t d_dmin = field_u32<kWide>(w, field_at(w, 2, first, block));
    MLXN_GLOBAL const uint8_t* scales = field_at(w, 0, first, block);
    MLXN_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t s = scales[start(chunk, half) / 16];
      c.scale[half] = half_of(d_dmin, 0) * float(s & 15u);
      c.addend[half] = -(half_of(d_dmin, 1) * float(s >> 4));
    }
    return c;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) { return PairChunk::start(chunk, half); }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) { return bit_pairs(c.q.w[quad], 2 * half); }
};

struct Q3K : Block256 {
  static constexpr uint32_t kZero = 4, kPlace = 16;
  static constexpr bool kFold = true, kAdds = false;
  struct Chunk {
    Words4 q, high;
    float scale[2], addend[2];
  };

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t chunk) {
    const PairChunk at = PairChunk::of(chunk);
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block) + 32 * at.part + kHalfElems * at.side);
    c.high = field_words4<kWide>(w, field_at(w, 0, first, block) + kHalfElems * at.side);
    MLXN_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      c.q.w[i] >>= 4 * at.pairs;
      c.high.w[i] >>= 4 * at.part + 2 * at.pairs;
    }
    const float d = f16_to_float(uint16_t(field_u16<kWide>(w, field_at(w, 3, first, block))));
    MLXN_GLOBAL const uint8_t* scales = field_at(w, 2, first, block);
    MLXN_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t in_part = 4 * at.pairs + 2 * half + at.side;
      const uint32_t low = scales[in_part] >> 4 * at.part & 15u;
      const uint32_t high = scales[8 + (2 * half + at.side)] >> 2 * (2 * at.part + at.pairs) & 3u;
      c.scale[half] = d * float(int32_t(low | high << 4) - 32);
      c.addend[half] = 0.0f;
    }
    return c;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) { return PairChunk::start(chunk, half); }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return bit_pairs(c.q.w[quad], 2 * half) | single_bits(c.high.w[quad], half) << 2;
  }
};

/// Of Q4_K and Q5_K: two runs of 32 elements lie in the nibbles of 32 bytes. A chunk is 16 of these bytes.
MLXN_FN uint32_t k4_start(uint32_t chunk, uint32_t half) { return (chunk >> 1) * 64 + 32 * half + (chunk & 1) * kHalfElems; }

/// Sets scale and addend of both halves from d, dmin and the eight packed pairs (sc, mn).
template <class Chunk>
MLXN_FN void k4_scales(const Words4& head, uint32_t chunk, Chunk& c) {
  const uint32_t run = chunk >> 1;  // of two sub-blocks
  const uint32_t lower = head.w[1], middle = head.w[2], upper = head.w[3];
  const uint32_t sc = run < 2 ? lower & 0x3f3f3f3fu : (upper & 0x0f0f0f0fu) | (lower >> 2 & 0x30303030u);
  const uint32_t mn = run < 2 ? middle & 0x3f3f3f3fu : (upper >> 4 & 0x0f0f0f0fu) | (middle >> 2 & 0x30303030u);
  MLXN_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    const uint32_t at = 16 * (run & 1) + 8 * half;
    c.scale[half] = half_of(head.w[0], 0) * float(sc >> at & 0xffu);
    c.addend[half] = -(half_of(head.w[0], 1) * float(mn >> at & 0xffu));
  }
}

struct Q4K : Block256 {
  static constexpr uint32_t kZero = 0, kPlace = 16;
  static constexpr bool kFold = false, kAdds = true;
  typedef ScaledNibbles Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t chunk) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block) + kHalfElems * chunk);
    k4_scales(field_words4<kWide>(w, field_at(w, 0, first, block)), chunk, c);
    return c;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) { return k4_start(chunk, half); }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) { return nibbles(c.q.w[quad], half); }
};

struct NibblesAndBits {
  Words4 q, high;
  float scale[2], addend[2];
};

struct Q5K : Block256 {
  static constexpr uint32_t kZero = 0, kPlace = 16;
  static constexpr bool kFold = false, kAdds = true;
  typedef NibblesAndBits Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t chunk) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 2, first, block) + kHalfElems * chunk);
    c.high = field_words4<kWide>(w, field_at(w, 1, first, block) + kHalfElems * (chunk & 1));
    MLXN_UNROLL
    for (uint32_t i = 0; i < 4; ++i) c.high.w[i] >>= 2 * (chunk >> 1);
    k4_scales(field_words4<kWide>(w, field_at(w, 0, first, block)), chunk, c);
    return c;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) { return k4_start(chunk, half); }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return nibbles(c.q.w[quad], half) | single_bits(c.high.w[quad], half) << 4;
  }
};

/// 128 elements: runs 0 and 1 of 32 lie in the low nibbles of 64 bytes, runs 2 and 3 in the high ones. A chunk is 16 of
/// these bytes; its upper bits are pairs in 16 bytes that it shares with another chunk.
struct Q6K : Block256 {
  static constexpr uint32_t kZero = 32, kPlace = 16;
  static constexpr bool kFold = true, kAdds = false;
  typedef NibblesAndBits Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t chunk) {
    const uint32_t part = chunk >> 2, run = chunk >> 1 & 1, side = chunk & 1;
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 0, first, block) + kHalfElems * chunk);
    c.high = field_words4<kWide>(w, field_at(w, 1, first, block) + 32 * part + kHalfElems * side);
    MLXN_UNROLL
    for (uint32_t i = 0; i < 4; ++i) c.high.w[i] >>= 2 * run;
    const float d = f16_to_float(uint16_t(field_u16<kWide>(w, field_at(w, 3, first, block))));
    MLXN_GLOBAL const uint8_t* scales = field_at(w, 2, first, block);
    MLXN_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      c.scale[half] = d * float(int32_t(int8_t(scales[start(chunk, half) / 16])));
      c.addend[half] = 0.0f;
    }
    return c;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) {
    return (chunk >> 2) * 128 + (chunk >> 1 & 1) * 32 + 64 * half + (chunk & 1) * kHalfElems;
  }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return nibbles(c.q.w[quad], half) | bit_pairs(c.high.w[quad], 4 * half) << 4;
  }
};

struct Iq4Xs : Block256 {  // a chunk is a sub-block, its nibbles split in halves
  static constexpr uint32_t kZero = 128, kPlace = 8;
  static constexpr bool kFold = false, kAdds = false;
  typedef ScaledNibbles Chunk;

  template <bool kWide>
  static MLXN_FN Chunk load(const quant::GpuWeight& w, int64_t first, uint32_t block, uint32_t chunk) {
    Chunk c;
    c.q = field_words4<kWide>(w, field_at(w, 1, first, block) + kHalfElems * chunk);
    MLXN_GLOBAL const uint8_t* head = field_at(w, 0, first, block);
    const uint32_t d_high = field_u32<kWide>(w, head), low = field_u32<kWide>(w, head + 4);
    const uint32_t sc = (low >> 4 * chunk & 15u) | (d_high >> (16 + 2 * chunk) & 3u) << 4;
    c.scale[0] = c.scale[1] = half_of(d_high, 0) * float(int32_t(sc) - 32);
    c.addend[0] = c.addend[1] = 0.0f;
    return c;
  }
  static MLXN_FN uint32_t start(uint32_t chunk, uint32_t half) { return kChunkElems * chunk + kHalfElems * half; }
  static MLXN_FN uint32_t codes(const Chunk& c, uint32_t half, uint32_t quad) {
    return Iq4Nl::codes(c, half, quad);
  }
};

// ---- elements -----------------------------------------------------------------------------------------------------------

/// f32, f16 or bf16. Rows may end anywhere, so that a row's last chunk has elements that are none.
template <class T>
struct Plain {
  static constexpr uint32_t kBytes = sizeof(T);

  static MLXN_FN MLXN_GLOBAL const T* row(const quant::GpuWeight& w, int64_t first) {
    return (MLXN_GLOBAL const T*)(w.data.ptr + first * int64_t(kBytes));
  }
  /// Eight elements; kWide: from an address that is a multiple of 16.
  template <bool kWide>
  static MLXN_FN void load8(MLXN_GLOBAL const T* p, float* out) {
    if constexpr (kWide) {
      MLXN_UNROLL
      for (uint32_t part = 0; part < kBytes / 2; ++part) {
        const Words4 words = load_words4((MLXN_GLOBAL const uint8_t*)p + 16 * part);
        MLXN_UNROLL
        for (uint32_t i = 0; i < 16 / kBytes; ++i) out[part * (16 / kBytes) + i] = element(words, i, T());
      }
    } else {
      MLXN_UNROLL
      for (uint32_t i = 0; i < 8; ++i) out[i] = load(p + i);
    }
  }

 private:
  static MLXN_FN float element(const Words4& words, uint32_t i, float) { return float_from_bits(words.w[i]); }
  static MLXN_FN float element(const Words4& words, uint32_t i, f16) { return half_of(words.w[i / 2], i & 1); }
  static MLXN_FN float element(const Words4& words, uint32_t i, bf16) {
    const uint32_t word = words.w[i / 2];
    return float_from_bits(i & 1 ? word & 0xffff0000u : word << 16);
  }
};

// ---- chunks of rows -----------------------------------------------------------------------------------------------------

/// A chunk of the row whose first block is `first`, as values; of plain elements with zeros behind the end of the row.
template <class F>
struct WeightRow {
  static constexpr bool kWhole = true;  // no chunk ends beyond the row
  /// The first element of a half in the row.
  static MLXN_FN int64_t start(uint32_t chunk, uint32_t half) {
    return int64_t(chunk / F::kChunks) * F::kElems + F::start(chunk % F::kChunks, half);
  }
  template <bool kWide>
  static MLXN_FN void load(const quant::GpuWeight& w, int64_t first, int64_t, uint32_t chunk, float (&out)[kChunkElems]) {
    const typename F::Chunk c = F::template load<kWide>(w, first, chunk / F::kChunks, chunk % F::kChunks);
    MLXN_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      const Coefficients terms = coefficients<F>(c.scale[half], c.addend[half]);
      MLXN_UNROLL
      for (uint32_t quad = 0; quad < 4; ++quad) {
        const uint32_t codes = F::codes(c, half, quad);
        MLXN_UNROLL
        for (uint32_t i = 0; i < 4; ++i) out[kHalfElems * half + 4 * quad + i] = decode<F>(codes, i, terms);
      }
    }
  }
};
template <class T>
struct WeightRow<Plain<T>> {
  static constexpr bool kWhole = false;
  static MLXN_FN int64_t start(uint32_t chunk, uint32_t half) { return int64_t(chunk) * kChunkElems + kHalfElems * half; }
  template <bool kWide>
  static MLXN_FN void load(const quant::GpuWeight& w, int64_t first, int64_t k, uint32_t chunk, float (&out)[kChunkElems]) {
    const int64_t begin = start(chunk, 0);
    MLXN_GLOBAL const T* row = Plain<T>::row(w, first) + begin;
    if (begin + kChunkElems <= k) {
      MLXN_UNROLL
      for (uint32_t part = 0; part < kChunkElems / 8; ++part) Plain<T>::template load8<kWide>(row + 8 * part, out + 8 * part);
    } else {
      MLXN_UNROLL
      for (uint32_t i = 0; i < kChunkElems; ++i) out[i] = begin + i < k ? gpu::load(row + i) : 0.0f;
    }
  }
};

/// Stores an element of the type that the launch names.
MLXN_FN void store_as(MLXN_GLOBAL void* y, uint32_t type, int64_t at, float v) {
  if (type == quant::kElementF32) store((MLXN_GLOBAL float*)y + at, v);
  else if (type == quant::kElementF16) store((MLXN_GLOBAL f16*)y + at, v);
  else store((MLXN_GLOBAL bf16*)y + at, v);
}

}  // namespace gpu
}  // namespace mlxn
