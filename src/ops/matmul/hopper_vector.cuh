// y[m, n] = x[m, k] * w[n, k]^T for up to four rows of x, w in records (quant/records.h), on Hopper.
//
// Bound: reading the weights once. An SM needs about 36 KB of copies in flight all the time; everything else
// has to hide behind that. Reached on an H200 with x in f32 and one row, of the read rate: q4_0 77 % at n 4096,
// k 14336 and 80 % at n 14336, k 4096; q8_0 87 and 88 %; q5_K 76 and 82 % (docs/benchmarks.md). The rest is the
// wait for the kernel before, x on its way and made ready (1.5 and 0.9 us), and, for types that are more work
// to unpack, instructions: 55 to 115 of a warp per unit.
//
// A block owns `tiles_per_block` tiles of 16 rows of w. Where k is large, two blocks of a cluster own twice as
// many together and half of k each, so that each makes half of x ready; the second sends its sums to the first.
// Roles of a block's warps:
//   kWarps math warps   turn x into their operand form once, then multiply. They are kTeams teams, which take
//                       stages by turns; of a stage, a warp takes every kTeamWarps-th unit (16 rows x 128 k)
//   1 copying warp      fills a ring of stages, one bulk copy of whole records (11 to 27 KB) each, `in_flight` at
//                       a time
//   1 summing warp      adds the math warps' parts of a finished tile, and does what follows: the norm's
//                       factor, the gate, the residual
// In a math warp lane 4 g + t has rows g and g + 8 of the tile, and of every 16 k those that the records give
// it; of the sums, those of rows g and g + 8 with one row of x and one block of 32 k.
//
// Programmatic launch: the ring's first `prefetch` stages are requested before the wait for the kernel
// before, the others after it: more in front takes bandwidth from that kernel's last blocks. So the records
// must not be what a kernel just before writes.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/bulk.cuh"
#include "cuda_blocks/cluster.cuh"
#include "cuda_blocks/mma.cuh"
#include "cuda_blocks/ptx.cuh"
#include "cuda_blocks/ring.cuh"
#include "ops/matmul/hopper_vector.h"
#include "ops/matmul/hopper_vector_formats.cuh"

namespace mlxn::sm90 {

using ops::HopperVectorArgs;

constexpr int kWarps = ops::kHopperVectorWarps, kTeams = ops::kHopperVectorTeams, kTeamWarps = kWarps / kTeams;
constexpr std::uint32_t kPartials = ops::kHopperVectorPartials;

/// Eight values of x as f32.
struct Eight {
  float v[8];
};
/// f16, or bf16 if `is_bf16`.
struct X16 {
  static __device__ __forceinline__ float2 pair(std::uint32_t word, bool is_bf16) {
    const float2 half = f16x2_to_f32(word);
    return make_float2(is_bf16 ? __uint_as_float(word << 16) : half.x,
                       is_bf16 ? __uint_as_float(word & 0xffff0000u) : half.y);
  }
  static __device__ __forceinline__ Eight values(const uint4& raw, bool is_bf16) {
    const float2 a = pair(raw.x, is_bf16), b = pair(raw.y, is_bf16), c = pair(raw.z, is_bf16),
                 d = pair(raw.w, is_bf16);
    return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
  }
};

/// The arithmetic. A block of 32 values of x is a power of two times 16-bit integers; an integer is 256 h + l
/// in two signed bytes, so h and l are two columns of B and every sum is exact in 32 bits. Against f16
/// operands: little or no unpacking of codes, a smaller error, any range of x.
///
/// Where one value outweighs the 31 others of its block together, 16 bits would leave those with fewer than
/// f16's eleven. What such blocks lose is 15 bits more of theirs, `low`, laid out like the rest; their units
/// are multiplied a second time.
///
/// Rows of x are pairs of columns. Where they fill fewer than 8, several blocks share an instruction's
/// columns, a slot each, and B is zero outside its block's slot.
template <class F, int kM>
struct VectorMath {
  static constexpr int kRows = kM;
  static constexpr int kSlots = kM < 4 ? 4 / kM : 1;   // blocks that share the columns
  static constexpr int kTileRows = 4 / kSlots;         // rows of x of one block in one instruction
  static constexpr int kColumnTiles = kM / kTileRows;  // instructions per block
  static constexpr int kGroups = 4 / kSlots;           // of blocks in a unit
  static constexpr int kParts = F::kParts;
  static constexpr bool kScaled = F::kPairs && kParts == 1;
  static constexpr std::uint32_t kUnitX = 256 * kM;    // [group][column tile][column 8][t 4][step 2][4 bytes]
  static constexpr std::uint32_t kUnitMeta = 32 * kM;  // [block][row of x], see store_meta
  static_assert(kM == 1 || kM == 2 || kM == 4, "16 lanes stage a group of blocks");
  static_assert(F::kHalves <= 2 && kTeamWarps % F::kHalves == 0, "a warp keeps to one half of records");

  struct Sums {
    float v[kColumnTiles][2];  // of the lane's row of x: rows g, rows g + 8 (times 16 if kScaled)
  };

  static __device__ __forceinline__ void clear(Sums& sums) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) sums.v[i][0] = sums.v[i][1] = 0;
  }

  /// Operand B by slot, which lanes of other slots never load: it stays zero there.
  struct Slots {
    uint2 b[2][kSlots] = {};
    bool is_mine[kSlots];

    __device__ __forceinline__ Slots() {
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot)
        is_mine[slot] = kSlots == 1 || static_cast<int>(threadIdx.x % 32 / 4) / (2 * kTileRows) == slot;
    }
  };

  /// Of a block and a row of x, eight bytes: the scale and what the codes' centre or the addend needs.
  ///   kParts 1   f32 scale, then i32 -kCentre * sum or f32 scale * sum
  ///   kParts 2   i32 sum of the first 16 k, scale's upper half in its low 9 bits; i32 sum of the others
  static __device__ __forceinline__ void store_meta(std::uint8_t* to, float scale, std::int32_t sum0,
                                                    std::int32_t sum1) {
    int2 meta;
    if constexpr (kParts == 2) {
      meta = make_int2(
          static_cast<std::int32_t>(static_cast<std::uint32_t>(sum0) << 9 | __float_as_uint(scale) >> 22),
          sum1);
    } else {
      const std::int32_t sum = sum0 + sum1;
      meta = make_int2(__float_as_int(scale),
                       F::kAdds ? __float_as_int(__int2float_rn(sum) * scale) : -F::kCentre * sum);
    }
    *reinterpret_cast<int2*>(to) = meta;
  }

  /// Eight values of four lanes, multiples of the scale below 32576, as bytes where the instruction wants
  /// them, and their sum.
  struct Packed {
    std::uint32_t block, row, half, step;
  };
  // 1.5 * 2^23 plus a value is its nearest integer in the low bits. With 128 more, byte 1 is h and byte 0
  // is l + 128.
  static constexpr float kRound = 12582912.0f + 128;
  static __device__ __forceinline__ void pack(const float (&scaled)[8], bool is_valid, const Packed& place,
                                              float scale, std::uint8_t* x_shared,
                                              std::uint8_t* meta_shared) {
    const std::uint32_t block = place.block, row = place.row, half = place.half;
    std::uint32_t q[8], sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      q[i] = __float_as_uint(scaled[i] + kRound);
      sum += q[i];
    }
    sum -= 8u * __float_as_uint(kRound);
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    const std::uint32_t other_sum = __shfl_xor_sync(0xffffffffu, sum, 2);
    const std::uint32_t slot = block % kSlots, group = block / kSlots, tile = row / kTileRows;
    const std::uint32_t column = (slot * kTileRows + row % kTileRows) * 2;
    std::uint8_t* out =
        x_shared + (group * kColumnTiles + tile) * 256 + column * 32 + half * 16 + place.step * 4;
    // The lane of k 0..7 of a k16 step writes the words of t = 0 and 1, that of k 8..15 those of t = 2
    // and 3.
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t low = permute_bytes(q[2 * i], q[2 * i + 1], 0x5410);
      const std::uint32_t high = permute_bytes(q[2 * i + 4], q[2 * i + 5], 0x5410);
      const std::uint32_t other = __shfl_xor_sync(0xffffffffu, half ? low : high, 1);
      const std::uint32_t first = half ? other : low, second = half ? high : other;  // k 2t 2t+1, 2t+8 2t+9
      if (is_valid) {
        *reinterpret_cast<std::uint32_t*>(out + i * 8) = permute_bytes(first, second, 0x7351);
        *reinterpret_cast<std::uint32_t*>(out + i * 8 + 32) =
            permute_bytes(first, second, 0x6240) ^ 0x80808080u;
      }
    }
    if (is_valid && (threadIdx.x & 3) == 0)
      store_meta(meta_shared + (block * kM + row) * 8, scale, static_cast<std::int32_t>(sum),
                 static_cast<std::int32_t>(other_sum));
  }

  /// What the 32 values of a block, eight in each of four lanes, are multiples of.
  struct Range {
    std::uint32_t exponent;  // of the scale; 255: values that are not finite
    float scale, inverse;
    float largest;  // 0 where nothing can be kept of what the integers leave
    float rest;     // sum of magnitudes of the lane's own values without the largest
  };
  /// Lanes, as bits, whose block has an outlier: in none of its four lanes the others come near the largest.
  static __device__ __forceinline__ std::uint32_t outliers(const Range& range) {
    std::uint32_t calm = __ballot_sync(0xffffffffu, !(range.rest < 0.5f * range.largest));  // NaN is calm
    calm |= calm >> 2 & 0x33333333u;
    calm |= calm >> 1 & 0x11111111u;
    return ~(calm & 0x11111111u) & 0x11111111u;
  }
  static __device__ __forceinline__ Range range_of(const Eight& x) {
    float mine = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) mine = larger_magnitude(mine, x.v[i]), sum += fabsf(x.v[i]);
    float largest = larger_magnitude(mine, __shfl_xor_sync(0xffffffffu, mine, 1));
    largest = larger_magnitude(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    // e is the exponent field, one more where the mantissa is nearly full: |x| * 2^(141 - e) < 32576, so that
    // h fits a byte.
    const std::uint32_t bits = __float_as_uint(largest), e = min(max((bits + 0x18000u) >> 23, 16u), 255u);
    Range range;
    range.exponent = e;
    range.inverse = __uint_as_float((268u - e) << 23);
    range.scale = bits < 0x7f800000u ? __uint_as_float((e - 14u) << 23) : __uint_as_float(0x7fc00000u);
    range.rest = sum - (mine == largest ? largest : 0.0f);
    range.largest = e > 31 && e < 254 ? largest : 0.0f;
    return range;
  }

  /// Four lanes hold the 32 values of block `block`, eight consecutive ones each; all lanes of the warp come
  /// here. Lanes whose block has an outlier, as bits; `flags` says it of groups of blocks, which 16 lanes
  /// hold.
  static __device__ __forceinline__ std::uint32_t stage(const Eight& x, bool is_valid, std::uint32_t block,
                                                        std::uint32_t row, std::uint8_t* x_shared,
                                                        std::uint8_t* meta_shared, std::uint8_t* flags) {
    const std::uint32_t lane = threadIdx.x & 31;
    const Range range = range_of(x);
    float scaled[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) scaled[i] = x.v[i] * range.inverse;
    pack(scaled, is_valid, {block, row, lane & 1, lane >> 1 & 1}, range.scale, x_shared, meta_shared);
    const std::uint32_t found = outliers(range);
    if (found != 0) {  // the same in all lanes
      if (is_valid && (lane & 15) == 0 && (found >> (lane & 16) & 0xffffu) != 0) flags[block / kSlots] = 1;
    }
    return found;
  }

  /// What the integers of a group of blocks with an outlier leave, likewise.
  static __device__ __forceinline__ void stage_low(const Eight& x, bool is_valid, std::uint32_t block,
                                                   std::uint32_t row, std::uint8_t* x_low,
                                                   std::uint8_t* meta_low) {
    const std::uint32_t lane = threadIdx.x & 31;
    const Range range = range_of(x);
    const bool has_outlier = (outliers(range) >> (lane & 28) & 1) != 0;
    float rest[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float scaled = x.v[i] * range.inverse, rounded = (scaled + kRound) - kRound;
      rest[i] = has_outlier ? (scaled - rounded) * 32768.0f : 0.0f;
    }
    pack(rest, is_valid, {block, row, lane & 1, lane >> 1 & 1}, range.scale * (1.0f / 32768), x_low,
         meta_low);
  }

  /// Adds kCount units to the sums: half kHalf of `record` and, kTeamWarps units on, of later records. groups:
  /// null, or flags of the unit's groups of blocks, those without being left out.
  template <int kCount, std::uint32_t kHalf>
  static __device__ __forceinline__ void multiply(const std::uint8_t* record, std::uint32_t unit,
                                                  const std::uint8_t* x_shared,
                                                  const std::uint8_t* meta_shared, Slots& slots, Sums& sums,
                                                  const std::uint8_t* groups = nullptr) {
    constexpr std::uint32_t kStride = kTeamWarps / F::kHalves * F::kRecordBytes;
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    typename F::Codes codes[kCount];
    typename F::Rows::Head head[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      codes[i].load(record + i * kStride + kHalf * F::kHalfBytes, lane);
      head[i].load(record + i * kStride + F::kCodeBytes, g, kHalf);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (groups != nullptr && groups[group] == 0) continue;
      const std::uint32_t block = group * kSlots + t / kTileRows;  // the lane's block of the sums
      Terms<kParts> terms[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        F::Rows::terms(head[i], record + i * kStride + F::kCodeBytes, g, kHalf, block, terms[i]);
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile) {
        std::int32_t c[kCount][kParts][4], second[kCount][2][4] = {};
        int2 meta[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          const std::uint32_t at = unit + i * kTeamWarps;
          const uint2* b = reinterpret_cast<const uint2*>(
              x_shared + ((at * kGroups + group) * kColumnTiles + tile) * 256 + lane * 8);
#pragma unroll
          for (int slot = 0; slot < kSlots; ++slot)
            if (slots.is_mine[slot]) slots.b[i][slot] = *b;
          meta[i] = *reinterpret_cast<const int2*>(
              meta_shared + ((at * 4 + block) * kM + tile * kTileRows + t % kTileRows) * 8);
          start(meta[i], c[i]);
        }
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            const int step = (group * kSlots + slot) * 2;
            const Operands a0 = codes[i].step(step), a1 = codes[i].step(step + 1);
            const std::uint32_t b0 = slots.b[i][slot].x, b1 = slots.b[i][slot].y;
            if constexpr (F::kSecond == 32) {
              const Operands s0 = codes[i].second_step(step), s1 = codes[i].second_step(step + 1);
              mma_s8_s8(c[i][0], a0.low, a0.high, a1.low, a1.high, b0, b1);
              mma_s8_s8(c[i][0], s0.low, s0.high, s1.low, s1.high, b0, b1);
            } else if constexpr (kParts == 1) {
              mma_u8_s8(c[i][0], a0.low, a0.high, a1.low, a1.high, b0, b1);
            } else {
              mma_u8_s8(c[i][0], a0.low, a0.high, b0);
              mma_u8_s8(c[i][1], a1.low, a1.high, b1);
            }
            if constexpr (F::kSecond == 16) {
              const Operands s0 = codes[i].second_step(step), s1 = codes[i].second_step(step + 1);
              mma_u8_s8(second[i][0], s0.low, s0.high, b0);
              mma_u8_s8(second[i][1], s1.low, s1.high, b1);
            }
          }
        }
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          std::int32_t codes_sum[kParts][2];
          whole_sums(c[i], codes_sum);
          if constexpr (F::kPairs) {
#pragma unroll
            for (int part = 0; part < kParts; ++part) codes_sum[part][0] -= codes_sum[part][1];
          }
          if constexpr (F::kSecond == 16) {
            std::int32_t second_sum[2][2];
            whole_sums(second[i], second_sum);
            F::Codes::join(codes_sum, second_sum, block);
          }
          add(codes_sum, meta[i], terms[i], sums.v[tile]);
        }
      }
    }
  }

  /// Whether any group of blocks of the unit has a low part.
  static __device__ __forceinline__ bool has_low(const std::uint8_t* flags, std::uint32_t unit) {
    bool has = false;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) has = has || flags[unit * kGroups + group] != 0;
    return has;
  }

  /// out[row of x][row 16] of this warp.
  static __device__ __forceinline__ void store(const Sums& sums, float* out) {
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int tile = 0; tile < kColumnTiles; ++tile) {
      float a = sums.v[tile][0], b = sums.v[tile][1] * (kScaled ? 0.0625f : 1.0f);
#pragma unroll
      for (int bit = kTileRows; bit < 4; bit *= 2) {  // lanes of the other slots
        a += __shfl_xor_sync(0xffffffffu, a, bit);
        b += __shfl_xor_sync(0xffffffffu, b, bit);
      }
      if (t < kTileRows) {
        out[(tile * kTileRows + t) * 16 + g] = a;
        out[(tile * kTileRows + t) * 16 + g + 8] = b;
      }
    }
  }

 private:
  static __device__ __forceinline__ std::int32_t part_sum(int2 meta, int part) {
    return part ? meta.y : meta.x >> 9;
  }
  static __device__ __forceinline__ float part_scale(int2 meta) {
    return __uint_as_float((static_cast<std::uint32_t>(meta.x) & 0x1ffu) << 22);
  }

  /// Accumulators that hold what the centre takes off.
  static __device__ __forceinline__ void start(int2 meta, std::int32_t (&c)[kParts][4]) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      c[part][0] = c[part][1] = c[part][2] = c[part][3] = 0;
      if constexpr (F::kCentre != 0) {
        const std::int32_t centre = kParts == 1 ? meta.y : -F::kCentre * part_sum(meta, part);
        c[part][1] = (F::Codes::factor(part, 0) + (F::kPairs ? F::Codes::factor(part, 1) : 0)) * centre;
        c[part][3] = F::Codes::factor(part, 1) * centre;
      }
    }
  }

  /// Of the two columns of a row of x.
  template <int kCount>
  static __device__ __forceinline__ void whole_sums(const std::int32_t (&c)[kCount][4],
                                                    std::int32_t (&sums)[kCount][2]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      sums[i][0] = c[i][0] * 256 + c[i][1];
      sums[i][1] = c[i][2] * 256 + c[i][3];
    }
  }

  static __device__ __forceinline__ void add(const std::int32_t (&codes)[kParts][2], int2 meta,
                                             const Terms<kParts>& terms, float (&sums)[2]) {
    if constexpr (kParts == 1) {
      const float scale = __int_as_float(meta.x);
      sums[0] += __int2float_rn(codes[0][0]) * (terms.scale[0][0] * scale);
      sums[1] += __int2float_rn(codes[0][1]) * (terms.scale[0][1] * scale);
      if constexpr (F::kAdds) {
        const float sum = __int_as_float(meta.y);
        sums[0] += terms.addend[0][0] * sum;
        sums[1] += terms.addend[0][1] * (kScaled ? 16 * sum : sum);
      }
    } else {
      const float scale = part_scale(meta);
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        float sum = 0;
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const float unit =
              terms.scale[part][upper] * (1.0f / static_cast<float>(F::Codes::factor(part, upper)));
          sum += __int2float_rn(codes[part][upper]) * unit;
          if constexpr (F::kAdds) sum += terms.addend[part][upper] * __int2float_rn(part_sum(meta, part));
        }
        sums[upper] += sum * scale;
      }
    }
  }
};

/// What of a tile's k a block has.
struct Part {
  std::uint32_t rank;           // of the block in its cluster
  std::uint32_t first, records;  // of the tile's
  std::uint32_t stages;          // that they are
  std::uint32_t first_k, end_k;  // of x
};

/// Items are eight values of x: item i is of row (i >> 2) % kM, from k (i >> 2) / kM * 32 + i % 4 * 8 of the
/// block's part on. So what lies kItemThreads apart is of one row, kItemStep apart.
constexpr int kItemThreads = kWarps * 32;
template <class Math>
constexpr int kItemStep = kItemThreads / Math::kRows * 8;

/// A thread's items from number `base`, a multiple of kItemThreads, on: where the first begins, in elements
/// from x's first, and how many elements of the part there are from there.
template <class Math>
struct Items {
  std::int64_t at;
  std::uint32_t k;
  std::int32_t left;
  __device__ __forceinline__ Items(const HopperVectorArgs& args, const Part& part, std::uint32_t item,
                                   std::uint32_t base) {
    constexpr int kM = Math::kRows;
    const std::uint32_t row = (item >> 2) % kM;
    k = part.first_k + (item >> 2) / kM * 32 + (item & 3) * 8 + base / kM * 8;
    at = row * args.x_stride + k;
    left = row < args.m ? static_cast<std::int32_t>(part.end_k) - static_cast<std::int32_t>(k) : 0;
  }
};

/// Where eight values of f32 are two pieces of 16 bytes, a warp's loads would touch every 32 bytes twice. So
/// lane i takes of its warp's items those that lane i % 16 and lane i % 16 + 16 want, a half of each; the
/// lanes change halves later.
struct Halves {
  float4 a, b;
};
/// From the half of the first item of the lane on, `from`, of which `left` elements of the row are left.
template <class Math>
__device__ __forceinline__ Halves load_halves(const float* from, std::int32_t left, int i) {
  constexpr int kOther = 16 / Math::kRows * 8;
  const int at = i * kItemStep<Math>;
  const float4 zero = make_float4(0, 0, 0, 0);
  return {at < left ? __ldcg(reinterpret_cast<const float4*>(from + at)) : zero,
          at + kOther < left ? __ldcg(reinterpret_cast<const float4*>(from + at + kOther)) : zero};
}
/// The lane's own item.
__device__ __forceinline__ Eight whole(const Halves& halves) {
  const bool upper = (threadIdx.x & 16) != 0;
  const float4 &a = halves.a, &b = halves.b;
  const float away[4] = {upper ? a.x : b.x, upper ? a.y : b.y, upper ? a.z : b.z, upper ? a.w : b.w};
  const float kept[4] = {upper ? b.x : a.x, upper ? b.y : a.y, upper ? b.z : a.z, upper ? b.w : a.w};
  Eight out;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float got = __shfl_xor_sync(0xffffffffu, away[i], 16);
    out.v[i] = upper ? got : kept[i];
    out.v[i + 4] = upper ? kept[i] : got;
  }
  return out;
}

/// Products of two runs.
__device__ __forceinline__ Halves times(const Halves& x, const Halves& w) {
  return {make_float4(x.a.x * w.a.x, x.a.y * w.a.y, x.a.z * w.a.z, x.a.w * w.a.w),
          make_float4(x.b.x * w.b.x, x.b.y * w.b.y, x.b.z * w.b.z, x.b.w * w.b.w)};
}

/// How x lies in memory, and whether it is normed: of the norm, x is multiplied by the weights here; what is
/// left, one over the root mean square, is a factor of the sums, so that only their end waits for it.
enum class Kind { f32, f16, normed };
__device__ __forceinline__ Kind kind_of(const HopperVectorArgs& args) {
  if (args.norm.ptr != nullptr) return Kind::normed;
  return args.x_type == quant::kElementF32 ? Kind::f32 : Kind::f16;
}

/// kCount items of each thread, kItemThreads apart, from its item number `base` + thread on; those behind
/// `items` are zeros. All loads are under way before the first is used: one trip to L2, not one per load. All
/// lanes of a warp together. squares: of what is normed, grows by the squares of all that the lane loaded,
/// which is of one row.
template <class Math, Kind kKind, int kCount>
__device__ __forceinline__ void load_items(const HopperVectorArgs& args, const Part& part,
                                           std::uint32_t thread, std::uint32_t base, std::uint32_t items, Eight (&x)[kCount],
                                           float& squares) {
  if constexpr (kKind == Kind::f16) {
    const Items<Math> mine(args, part, thread, base);
    const std::uint16_t* from = static_cast<const std::uint16_t*>(args.x.ptr) + mine.at;
    uint4 raw[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      raw[i] = i * kItemStep<Math> < mine.left
                   ? __ldcg(reinterpret_cast<const uint4*>(from + i * kItemStep<Math>))
                   : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = X16::values(raw[i], args.x_type == quant::kElementBf16);
  } else {
    constexpr bool kIsNormed = kKind == Kind::normed;
    const Items<Math> mine(args, part, thread & ~16u, base);
    const std::uint32_t half = thread / 16 % 2 * 4;
    Halves raw[kCount], weight[kIsNormed ? kCount : 1];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      raw[i] = load_halves<Math>(static_cast<const float*>(args.x.ptr) + mine.at + half, mine.left, i);
    if constexpr (kIsNormed) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        weight[i] = load_halves<Math>(args.norm.ptr + mine.k + half, mine.left, i);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      x[i] = Eight{};
      if (base + i * kItemThreads >= items) continue;  // the same in all threads
      if constexpr (kIsNormed) {
        const float4 &a = raw[i].a, &b = raw[i].b;
        squares = fmaf(a.x, a.x, fmaf(a.y, a.y, fmaf(a.z, a.z, fmaf(a.w, a.w, squares))));
        squares = fmaf(b.x, b.x, fmaf(b.y, b.y, fmaf(b.z, b.z, fmaf(b.w, b.w, squares))));
        raw[i] = times(raw[i], weight[i]);
      }
      x[i] = whole(raw[i]);
    }
  }
}
template <class Math, int kCount>
__device__ __forceinline__ void load_items(const HopperVectorArgs& args, Kind kind, const Part& part,
                                           std::uint32_t thread, std::uint32_t base, std::uint32_t items, Eight (&x)[kCount],
                                           float& squares) {
  if (kind == Kind::normed)
    load_items<Math, Kind::normed>(args, part, thread, base, items, x, squares);
  else if (kind == Kind::f32)
    load_items<Math, Kind::f32>(args, part, thread, base, items, x, squares);
  else
    load_items<Math, Kind::f16>(args, part, thread, base, items, x, squares);
}

/// A warp's part of its rows' sums of squares, for vector_squares. sums: [warp][row].
template <int kM>
__device__ __forceinline__ void store_squares(float squares, std::uint32_t thread, float* sums) {
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2) {
    if (bit < 4 || bit >= 4 * kM) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
  }
  if (thread % 32 / 4 < kM && thread % 4 == 0) sums[thread / 32 * kM + thread % 32 / 4] = squares;
}
/// The block's sum of squares of a row.
template <class Math>
__device__ __forceinline__ float vector_squares(const float* sums, std::uint32_t row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp * Math::kRows + row];
  return sum;
}

/// The operand form of x. Loops are not unrolled where they need not be: all of the kernel has to stay in the
/// instruction cache beside the kernels that run between two of its launches.
template <class Math>
__device__ __forceinline__ void vector_stage_x(const HopperVectorArgs& args, const Part& part,
                                               std::uint32_t units, std::uint32_t thread,
                                               std::uint8_t* memory) {
  constexpr std::uint32_t kM = Math::kRows, kThreads = kItemThreads;
  constexpr int kBatch = 4, kAtOnce = 1;  // items of a thread: loaded, and staged so that latencies overlap
  const std::uint32_t items = units * 4 * kM * 4;  // of eight values
  std::uint8_t *x_shared = memory + args.at.x, *meta_shared = memory + args.at.meta,
               *flags = memory + args.at.flags;
  const Kind kind = kind_of(args);
  std::uint32_t votes = 0;
  float squares = 0;
#pragma unroll 1
  for (std::uint32_t base = 0; base < items; base += kThreads * kBatch) {
    Eight x[kBatch];
    load_items<Math>(args, kind, part, thread, base, items, x, squares);
    const std::uint32_t end = min(items, base + kThreads * kBatch);
#pragma unroll 1
    for (std::uint32_t first = base; first < end; first += kThreads * kAtOnce) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const std::uint32_t item = first + i * kThreads + thread, task = item >> 2;
        votes |= Math::stage(x[i], item < items, task / kM, task % kM, x_shared, meta_shared, flags);
      }
#pragma unroll
      for (int i = 0; i + kAtOnce < kBatch; ++i) x[i] = x[i + kAtOnce];
    }
  }
  if (kind == Kind::normed)
    store_squares<kM>(squares, thread, reinterpret_cast<float*>(memory + args.at.sums));
  if (votes == 0) return;  // the same in all lanes of the warp, which had all its groups itself
  if (thread % 32 == 0) flags[units * 4 + thread / 32] = 1;
  __syncwarp();
#pragma unroll 1
  for (std::uint32_t item = thread; item - thread % 32 < items; item += kThreads) {
    const std::uint32_t task = item >> 2, block = task / kM;
    const bool is_valid = item < items && flags[block / Math::kSlots] != 0;
    if (__ballot_sync(0xffffffffu, is_valid) == 0) continue;
    Eight x[1];
    load_items<Math>(args, kind, part, thread, item - thread, items, x, squares);
    Math::stage_low(x[0], is_valid, block, task % kM, memory + args.at.low,
                    memory + args.at.low + (args.at.meta - args.at.x));
  }
}

/// The tile of w that is the i-th of all blocks' together.
__device__ __forceinline__ std::uint32_t vector_tile(const HopperVectorArgs& args, std::uint32_t i) {
  return args.half_tiles == 0 ? i : i / 2 + i % 2 * args.half_tiles;
}

/// The activation of silu_mul or gelu_mul.
__device__ __forceinline__ float vector_gate(float gate, std::uint32_t activation) {
  // (1 + tanh z) / 2 = 1 / (1 + e^-2z)
  const float z = activation == ops::kHopperVectorSilu
                      ? gate
                      : (gate + gate * gate * gate * 0.044715f) * (2.0f * 0.7978845608028654f);
  const float e = expf(-fabsf(z));
  return (z < 0 ? gate * e : gate) / (1.0f + e);
}

__device__ __forceinline__ float vector_load_residual(const HopperVectorArgs& args, std::uint32_t row,
                                                      std::uint32_t column) {
  const std::int64_t at = row * args.residual_stride + column;
  if (args.y_type == quant::kElementF32) return __ldcg(static_cast<const float*>(args.residual.ptr) + at);
  const std::uint32_t bits = __ldcg(static_cast<const std::uint16_t*>(args.residual.ptr) + at);
  return X16::pair(bits, args.y_type == quant::kElementBf16).x;
}

__device__ __forceinline__ void vector_store_y(const HopperVectorArgs& args, std::uint32_t row,
                                               std::uint32_t column, float value) {
  const std::int64_t at = row * args.y_stride + column;
  if (args.y_type == quant::kElementF32)
    static_cast<float*>(args.y.ptr)[at] = value;
  else
    static_cast<std::uint16_t*>(args.y.ptr)[at] = static_cast<std::uint16_t>(
        args.y_type == quant::kElementF16 ? f32_to_f16x2(value, 0) : f32_to_bf16x2(value, 0));
}

/// What a math warp does once x is ready: its team takes every kTeams-th stage, of which the warp takes every
/// kTeamWarps-th unit. Which ones of a tile depends on the tile alone, not on what its block has. kHalf: of
/// large records, the half that its units are.
template <class F, int kM, std::uint32_t kHalf>
__device__ __forceinline__ void vector_multiply(const HopperVectorArgs& args, std::uint8_t* memory,
                                                const Part& part, std::uint32_t warp,
                                                std::uint32_t first_tile, std::uint32_t n_tiles, Barrier full,
                                                Barrier partial_full) {
  using Math = VectorMath<F, kM>;
  const std::uint32_t lane = threadIdx.x % 32, stage_bytes = args.stage_records * F::kRecordBytes;
  const Barrier empty = full + 8 * args.stages, partial_empty = partial_full + 8 * kPartials;
  const std::uint8_t *x_shared = memory + args.at.x, *meta_shared = memory + args.at.meta;
  const std::uint8_t* flags = memory + args.at.flags;
  const std::uint32_t low = args.at.low - args.at.x;
  std::uint32_t of_warps = 0;
#pragma unroll
  for (std::uint32_t i = 0; i < kWarps; i += 4)
    of_warps |= *reinterpret_cast<const std::uint32_t*>(flags + part.records * F::kHalves * 4 + i);
  const bool any_low = of_warps != 0;
  // The block's stages that are the team's.
  std::uint32_t slot = (warp / kTeamWarps + first_tile * part.stages) % kTeams, parity = 0;
  std::uint32_t tile_stage = slot;
  typename Math::Slots slots;
  for (std::uint32_t i = 0; i < n_tiles; ++i) {
    typename Math::Sums sums;
    Math::clear(sums);
    // Where its sums go: those of the team that has the tile's first stage come first.
    const std::uint32_t place = tile_stage * kTeamWarps + warp % kTeamWarps;
    for (; tile_stage < part.stages; tile_stage += kTeams) {
      const std::uint32_t first = tile_stage * args.stage_records;
      const std::uint32_t units = min(args.stage_records, part.records - first) * F::kHalves;
      const std::uint8_t* stage = memory + slot * stage_bytes;
      barrier_wait(full + 8 * slot, parity);
      std::uint32_t j = warp % kTeamWarps;
      for (; j + kTeamWarps < units; j += 2 * kTeamWarps)
        Math::template multiply<2, kHalf>(stage + j / F::kHalves * F::kRecordBytes, first * F::kHalves + j,
                                          x_shared, meta_shared, slots, sums);
      // One by one: what is left, then what outliers left of any.
      bool is_low = false;
      if (j < units || any_low)
#pragma unroll 1
      for (;; j += kTeamWarps) {
        if (j >= units) {
          if (is_low || !any_low) break;
          is_low = true, j = warp % kTeamWarps;
          if (j >= units) break;
        }
        const std::uint32_t unit = first * F::kHalves + j;
        if (is_low && !Math::has_low(flags, unit)) continue;
        Math::template multiply<1, kHalf>(stage + j / F::kHalves * F::kRecordBytes, unit,
                                          x_shared + (is_low ? low : 0), meta_shared + (is_low ? low : 0),
                                          slots, sums, is_low ? flags + unit * Math::kGroups : nullptr);
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(empty + 8 * slot);
      slot += kTeams;
      if (slot >= args.stages) slot -= args.stages, parity ^= 1;
    }
    tile_stage -= part.stages;
    const std::uint32_t buffer = i % kPartials, round = i / kPartials;
    if (round > 0) barrier_wait(partial_empty + 8 * buffer, (round - 1) & 1);
    Math::store(sums,
                reinterpret_cast<float*>(memory + args.at.partial) + (buffer * kWarps + place) * kM * 16);
    barrier_arrive(partial_full + 8 * buffer);  // every lane for what it wrote
  }
}

/// The warp that adds up what the math warps have of a tile, and does what follows.
template <class Math>
__device__ __forceinline__ void vector_finish(const HopperVectorArgs& args, std::uint8_t* memory,
                                              std::uint32_t rank, std::uint32_t first_tile,
                                              std::uint32_t n_tiles, Barrier partial_full) {
  constexpr int kM = Math::kRows;
  constexpr int kMine = (kM * 16 + 31) / 32;  // sums of a lane
  const std::uint32_t lane = threadIdx.x % 32;
  const Barrier partial_empty = partial_full + 8 * kPartials, other_full = partial_empty + 8 * kPartials,
                other_empty = other_full + 8 * kPartials;
  const float* squares = reinterpret_cast<const float*>(memory + args.at.sums);
  float* other = reinterpret_cast<float*>(memory + args.at.other);
  float* other_squares = other + kPartials * kM * 16;
  const bool is_normed = args.norm.ptr != nullptr;
  float gates[kMine] = {};  // of the tile before
  float factors[kMine];
  for (std::uint32_t i = 0; i < n_tiles; ++i) {
    const std::uint32_t buffer = i % kPartials, parity = i / kPartials & 1;
    const float* part = reinterpret_cast<const float*>(memory + args.at.partial) + buffer * kWarps * kM * 16;
    if (rank != 0) {  // sends them to the block that has the first part of k
      barrier_wait(partial_full + 8 * buffer, parity);
      if (i >= kPartials) cluster_barrier_wait(other_empty + 8 * buffer, parity ^ 1);
      const Barrier to_barrier = cluster_address(other_full + 8 * buffer, 0);
      if (lane < kM * 4) {
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          const float4 v = reinterpret_cast<const float4*>(part + w * kM * 16)[lane];
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        cluster_send(cluster_address(shared_address(other + buffer * kM * 16 + lane * 4), 0), to_barrier, sum.x,
                     sum.y, sum.z, sum.w);
      } else if (lane == 31 && i == 0 && is_normed) {
        float sum[4] = {};
#pragma unroll
        for (int row = 0; row < kM; ++row) sum[row] = vector_squares<Math>(squares, row);
        cluster_send(cluster_address(shared_address(other_squares), 0), to_barrier, sum[0], sum[1], sum[2],
                     sum[3]);
      }
      barrier_arrive(partial_empty + 8 * buffer);
      continue;
    }
    const bool is_gate = args.half_tiles != 0 && i % 2 == 0;
    const std::uint32_t at = first_tile + i, first_column = (args.half_tiles == 0 ? at : at / 2) * 16;
    float added[kMine];
#pragma unroll
    for (int p = 0; p < kMine; ++p) {
      const std::uint32_t j = lane + 32 * p, column = first_column + j % 16;
      const bool is_mine = args.residual.ptr != nullptr && !is_gate && j < args.m * 16 && column < args.n;
      added[p] = is_mine ? vector_load_residual(args, j / 16, column) : 0.0f;
    }
    if (args.parts > 1) {
      if (lane == 0)
        barrier_arrive_expect(other_full + 8 * buffer, kM * 64 + (i == 0 && is_normed ? 16 : 0));
      cluster_barrier_wait(other_full + 8 * buffer, parity);
    }
    barrier_wait(partial_full + 8 * buffer, parity);
    if (i == 0) {
#pragma unroll
      for (int p = 0; p < kMine; ++p) {
        const std::uint32_t row = (lane + 32 * p) / 16;
        factors[p] = 1.0f;
        if (!is_normed || row >= kM) continue;
        const float sum = vector_squares<Math>(squares, row) + (args.parts > 1 ? other_squares[row] : 0.0f);
        factors[p] = 1.0f / sqrtf(sum / static_cast<float>(args.k) + args.norm_eps);
      }
    }
    float sums[kMine];
#pragma unroll
    for (int p = 0; p < kMine; ++p) {
      const std::uint32_t j = lane + 32 * p;
      sums[p] = 0;
      if constexpr (kM == 1) {  // half of the warps' for each half of the lanes
#pragma unroll
        for (int w = 0; w < kWarps; w += 2) sums[p] += part[w * 16 + j];
        sums[p] += __shfl_xor_sync(0xffffffffu, sums[p], 16);
      } else {
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sums[p] += part[w * kM * 16 + j];
      }
      if (args.parts > 1 && j < kM * 16) sums[p] += other[buffer * kM * 16 + j];
    }
    // Before y is stored: an arrival waits for what was.
    barrier_arrive(partial_empty + 8 * buffer);
    if (args.parts > 1 && i + kPartials < n_tiles) {  // the other block runs until it has this
      __syncwarp();
      if (lane == 0) cluster_arrive(other_empty + 8 * buffer, 1);
    }
#pragma unroll
    for (int p = 0; p < kMine; ++p) {
      const std::uint32_t j = lane + 32 * p, column = first_column + j % 16;
      if (j >= args.m * 16) continue;
      float sum = sums[p] * factors[p];
      if (is_gate) {
        gates[p] = vector_gate(sum, args.activation);
        continue;
      }
      if (args.half_tiles != 0) sum *= gates[p];
      if (column < args.n) vector_store_y(args, j / 16, column, sum + added[p]);
    }
  }
}

template <class F, int kM>
__device__ __forceinline__ void vector_block(const HopperVectorArgs& args, std::uint8_t* memory) {
  using Math = VectorMath<F, kM>;
  const std::uint32_t warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const std::uint32_t stage_bytes = args.stage_records * F::kRecordBytes;
  const std::uint32_t ring = shared_address(memory);
  const Barrier full = shared_address(memory + args.at.barriers), empty = full + 8 * args.stages;
  const Barrier partial_full = empty + 8 * args.stages, partial_empty = partial_full + 8 * kPartials,
                other_full = partial_empty + 8 * kPartials, other_empty = other_full + 8 * kPartials;

  Part part{};
  std::uint32_t cluster = blockIdx.x;
  if (args.parts > 1) part.rank = cluster_rank(), cluster /= args.parts;
  part.first = part.rank * args.part_records;
  part.records = min(args.part_records, args.tile_records - part.first);
  part.stages = (part.records + args.stage_records - 1) / args.stage_records;
  part.first_k = part.first * F::kRecord.elems;
  part.end_k = min(args.k, part.first_k + part.records * F::kRecord.elems);
  const std::uint32_t first_tile = cluster * args.tiles_per_block;
  const std::uint32_t n_tiles = min(args.tiles_per_block, args.tiles - first_tile);

  // The copying thread does its first requests before anything else happens.
  const bool is_copying = warp == kWarps && elect_lane();
  std::uint64_t policy = 0;
  std::uint32_t tile = 0, record = 0, requested = 0;
  RingPosition fill;
  auto request = [&]() {  // the next stage; false after the last
    if (tile == n_tiles) return false;
    const std::uint32_t count = min(args.stage_records, part.records - record);
    const std::uint32_t bytes = count * F::kRecordBytes;
    const std::uint64_t index =
        static_cast<std::uint64_t>(vector_tile(args, first_tile + tile)) * args.tile_records + part.first +
        record;
    barrier_arrive_expect(full + 8 * fill.slot, bytes);
    bulk_load(ring + fill.slot * stage_bytes, args.records.ptr + index * F::kRecordBytes, bytes,
              full + 8 * fill.slot, policy);
    fill.advance(args.stages);
    ++requested;
    record += count;
    if (record == part.records) record = 0, ++tile;
    return true;
  };
  if (is_copying) {
    for (std::uint32_t i = 0; i < args.stages; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kTeamWarps);
    }
    for (std::uint32_t i = 0; i < kPartials; ++i) {
      barrier_init(partial_full + 8 * i, kWarps * 32);
      barrier_init(partial_empty + 8 * i, 32);
      barrier_init(other_full + 8 * i, 1);
      barrier_init(other_empty + 8 * i, 1);
    }
    barrier_init_fence();
    policy = policy_read_once();
    while (requested < args.prefetch && request()) {
    }
    dependency_launch();
  }
  if (warp == kWarps + 1) {  // no outliers yet
    const std::uint32_t words = part.records * F::kHalves + kWarps / 4;
    for (std::uint32_t i = lane; i < words; i += 32)
      reinterpret_cast<std::uint32_t*>(memory + args.at.flags)[i] = 0;
  }
  __syncthreads();
  if (args.parts > 1) cluster_arrive();
  dependency_wait();
  if (args.parts > 1) cluster_wait();

  if (warp < kWarps) {
    const std::uint32_t units = part.records * F::kHalves;
    vector_stage_x<Math>(args, part, units, threadIdx.x, memory);
    named_barrier(1, kWarps * 32);
    if (F::kHalves == 1 || warp % 2 == 0)
      vector_multiply<F, kM, 0>(args, memory, part, warp, first_tile, n_tiles, full,
                                    partial_full);
    else
      vector_multiply<F, kM, F::kHalves - 1>(args, memory, part, warp, first_tile, n_tiles, full,
                                    partial_full);
  } else if (warp == kWarps) {
    if (!is_copying) return;
    RingPosition oldest;
    for (std::uint32_t waited = 0;;) {
      // With more on its way than the memory needs to be busy, x would wait behind it.
      for (; requested >= waited + args.in_flight; ++waited, oldest.advance(args.stages))
        barrier_wait(full + 8 * oldest.slot, oldest.parity);
      // The slot's readers are done with what it held a turn ago; in the first turn nobody reads.
      if (requested >= args.stages && tile < n_tiles) barrier_wait(empty + 8 * fill.slot, fill.parity ^ 1);
      if (!request()) break;
    }
  } else {
    vector_finish<Math>(args, memory, part.rank, first_tile, n_tiles, partial_full);
  }
}

#if defined(__CUDACC__)
/// Other devices than Hopper have the kernel's name only.
template <class F, int kM>
__global__ void __launch_bounds__(ops::kHopperVectorThreads, 1)
    hopper_vector(const __grid_constant__ HopperVectorArgs args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  extern __shared__ __align__(1024) std::uint8_t shared[];
  vector_block<F, kM>(args, shared);
#else
  static_cast<void>(args);
#endif
}
#endif

}  // namespace mlxn::sm90
