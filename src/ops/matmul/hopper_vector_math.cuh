// The multiplication of Hopper's few-row kernel: a warp's units of w with x as VectorX left it.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/mma.cuh"
#include "cuda_blocks/ptx.cuh"
#include "ops/matmul/hopper_vector_shape.cuh"

namespace mlxn::sm90 {

template <class Shape>
struct VectorMath {
  using F = typename Shape::Format;
  static constexpr int kM = Shape::kRows, kSlots = Shape::kSlots, kTileRows = Shape::kTileRows,
                       kColumnTiles = Shape::kColumnTiles, kGroups = Shape::kGroups, kParts = F::kParts,
                       kTeamWarps = Shape::kTeamWarps;
  static constexpr bool kScaled = F::kPairs && kParts == 1;
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
    uint2 b[kSlots][2] = {};  // of two units
    bool is_mine[kSlots];

    __device__ __forceinline__ Slots() {
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot)
        is_mine[slot] = kSlots == 1 || static_cast<int>(threadIdx.x % 32 / 4) / (2 * kTileRows) == slot;
    }
  };

  /// Adds kCount units to the sums: half kHalf of `record` and, kTeamWarps units on, of a later record. pair,
  /// in_pair: where x of the first lies (Shape). groups: null, or flags of the unit's groups of blocks, those
  /// without being left out.
  template <int kCount, std::uint32_t kHalf>
  static __device__ __forceinline__ void multiply(const std::uint8_t* record, std::uint32_t pair,
                                                  std::uint32_t in_pair, const std::uint8_t* x_shared,
                                                  const std::uint8_t* meta_shared,
                                                  const typename F::Constants& constants, Slots& slots,
                                                  Sums& sums, const std::uint8_t* groups = nullptr) {
    constexpr std::uint32_t kStride = kTeamWarps / F::kHalves * F::kRecordBytes;
    constexpr std::uint32_t kFirstAt = F::template kPlaneAt<kHalf, 0>,
                            kSecondAt = F::template kPlaneAt<kHalf, 1>;
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    typename F::Codes codes[kCount];
    typename F::Rows::Head head[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      codes[i].load(record + i * kStride + kFirstAt, record + i * kStride + kSecondAt, lane);
      head[i].load(record + i * kStride + F::kRowsAt, g, kHalf);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (groups != nullptr && groups[group] == 0) continue;
      const std::uint32_t block = group * kSlots + t / kTileRows;  // the lane's block of the sums
      Terms<kParts> terms[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        F::Rows::terms(head[i], record + i * kStride + F::kRowsAt, g, kHalf, block, terms[i],
                       constants.rows);
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile) {
        std::int32_t c[kCount][kParts][4], second[kCount][2][4] = {};
        int2 meta[kCount];
        load_x<kCount>(x_shared + Shape::x_place(pair, group, tile) + Shape::place_of(lane / 8, lane % 8),
                       meta_shared + Shape::meta_place(pair, block, tile * kTileRows + t % kTileRows),
                       in_pair, slots, meta);
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
#pragma unroll
          for (int part = 0; part < kParts; ++part)
            c[i][part][0] = c[i][part][1] = c[i][part][2] = c[i][part][3] = 0;
        }
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            const int step = (group * kSlots + slot) * 2;
            const Operands a0 = codes[i].step(step, constants.codes),
                           a1 = codes[i].step(step + 1, constants.codes);
            const std::uint32_t b0 = slots.b[slot][i].x, b1 = slots.b[slot][i].y;
            if constexpr (F::kSecond == 32) {
              mma_s8_s8(c[i][0], a0.low, a0.high, a1.low, a1.high, b0, b1);
            } else if constexpr (kParts == 1) {
              mma_u8_s8(c[i][0], a0.low, a0.high, a1.low, a1.high, b0, b1);
            } else {
              mma_u8_s8(c[i][0], a0.low, a0.high, b0);
              mma_u8_s8(c[i][1], a1.low, a1.high, b1);
            }
            if constexpr (F::kSecond == 16) {
              const Operands s0 = codes[i].second_step(step, constants.codes),
                             s1 = codes[i].second_step(step + 1, constants.codes);
              mma_u8_s8(second[i][0], s0.low, s0.high, b0);
              mma_u8_s8(second[i][1], s1.low, s1.high, b1);
            }
          }
          if constexpr (F::kSecond == 32) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
              const int step = (group * kSlots + slot) * 2;
              const Operands s0 = codes[i].second_step(step, constants.codes),
                             s1 = codes[i].second_step(step + 1, constants.codes);
              mma_s8_s8(c[i][0], s0.low, s0.high, s1.low, s1.high, slots.b[slot][i].x, slots.b[slot][i].y);
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
          take_off_centre(meta[i], codes_sum);
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
      const float a = sums.v[tile][0], b = sums.v[tile][1] * (kScaled ? 0.0625f : 1.0f);
      float* to = out + (tile * kTileRows + t % kTileRows) * 16 + g;
      if constexpr (kTileRows == 4) {
        to[0] = a, to[8] = b;
      } else {  // with lanes of the other slots: of a pair of lanes, each adds up one row
        const bool is_upper = (t & kTileRows) != 0;
        float sum = (is_upper ? b : a) + __shfl_xor_sync(0xffffffffu, is_upper ? a : b, kTileRows);
        if constexpr (kTileRows == 1) sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (t < 2 * kTileRows) to[is_upper ? 8 : 0] = sum;
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

  /// Of one unit or two: from the lane's place in operand B and in the scales of the first.
  template <int kCount>
  static __device__ __forceinline__ void load_x(const std::uint8_t* b, const std::uint8_t* scales,
                                                std::uint32_t in_pair, Slots& slots, int2 (&meta)[kCount]) {
    if constexpr (kCount == 2 && Shape::kTogether == 2) {
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot) {
        if (!slots.is_mine[slot]) continue;
        const uint4 both = load_as<uint4>(b);
        slots.b[slot][0] = make_uint2(both.x, both.y), slots.b[slot][1] = make_uint2(both.z, both.w);
      }
      const uint4 two = load_as<uint4>(scales);
      meta[0] = make_int2(static_cast<int>(two.x), static_cast<int>(two.y));
      meta[1] = make_int2(static_cast<int>(two.z), static_cast<int>(two.w));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const std::uint32_t pair = i * kTeamWarps;
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot)
          if (slots.is_mine[slot])
            slots.b[slot][i] = load_as<uint2>(b + Shape::x_place(pair, 0, 0) + in_pair * 8);
        meta[i] = load_as<int2>(scales + Shape::meta_place(pair, 0, 0) + in_pair * 8);
      }
    }
  }

  /// Takes off what the codes' centre has added.
  static __device__ __forceinline__ void take_off_centre(int2 meta, std::int32_t (&sums)[kParts][2]) {
    if constexpr (F::kCentre != 0) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const std::int32_t centre = kParts == 1 ? meta.y : -F::kCentre * part_sum(meta, part);
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) sums[part][upper] += F::Codes::factor(part, upper) * centre;
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

/// What a math warp does once its x is ready: its team takes every kTeams-th stage, of which the warp takes
/// every kTeamWarps-th unit. Which ones of a tile depends on the tile alone, not on what its block has.
/// kHalf: of large records, the half that its units are.
template <class Shape, std::uint32_t kHalf>
__device__ __forceinline__ void vector_multiply(const HopperVectorArgs& args, std::uint8_t* memory,
                                                const Part& part, std::uint32_t warp,
                                                const Barriers& barriers) {
  using F = typename Shape::Format;
  using Math = VectorMath<Shape>;
  constexpr std::uint32_t kTeams = Shape::kTeams, kTeamWarps = Shape::kTeamWarps;
  constexpr int kMostPairs = ops::kHopperVectorStageUnits / (2 * kTeamWarps);
  // Of look-ups, whose time is instructions, those of a loop too; others keep the kernel small (vector_stage_x), and
  // four rows of iq4_xs take 14.6 us instead of 16.8 (14336x4096, H200). Of one row a whole stage's pairs have no branch
  // between, so that one is loaded while the one before is multiplied: mxfp4 9.4 -> 9.3 us at 4096x14336; two rows of
  // mxfp4 9.6 -> 10.0 at 14336x4096, one of iq4_xs 9.8 -> 9.9.
  constexpr bool kLooksUp = F::kSecond == 32, kIsStraight = kLooksUp && F::kHalves == 1 && Shape::kRows == 1;
  static_assert(!kIsStraight || Shape::kTogether == 2);
  [[maybe_unused]] constexpr int kUnrolled = kLooksUp && !kIsStraight && Shape::kRows < 4 ? kMostPairs : 1;
  const std::uint32_t stage_bytes = args.stage_bytes;
  const std::uint32_t stage_units = args.stage_records * F::kHalves;
  const std::uint32_t team = warp / kTeamWarps, mine = warp % kTeamWarps;
  const std::uint8_t *x_shared = memory + args.at.x, *meta_shared = memory + args.at.meta;
  const std::uint8_t* flags = memory + args.at.flags;
  const std::uint32_t low = args.at.low - args.at.x;
  // Whether any of the 16 units that a barrier of x is for has a low part: a byte per 32 items.
  const auto any_low_of = [&](std::uint32_t number) {
    const std::uint8_t* lows = memory + args.at.lows + number * (8 * Shape::kRows);
    if constexpr (Shape::kRows == 1) {
      const uint2 eight = load_as<uint2>(lows);
      return (eight.x | eight.y) != 0;
    }
    std::uint32_t any = 0;
#pragma unroll
    for (int i = 0; i < Shape::kRows / 2; ++i) {
      const uint4 both = load_as<uint4>(lows + 16 * i);
      any |= both.x | both.y | both.z | both.w;
    }
    return any != 0;
  };
  // The block's stages that are the team's.
  std::uint32_t slot = (team + part.first_tile * part.stages) % kTeams, parity = 0;
  std::uint32_t tile_stage = slot;
  typename Math::Slots slots;
  const typename F::Constants constants;
  for (std::uint32_t i = 0; i < part.n_tiles; ++i) {
    typename Math::Sums sums;
    Math::clear(sums);
    // Where its sums go: those of the team that has the tile's first stage come first.
    const std::uint32_t place = tile_stage * kTeamWarps + mine;
    const bool has_any = tile_stage < part.stages;
    for (; tile_stage < part.stages; tile_stage += kTeams) {
      const std::uint32_t first = tile_stage * stage_units, units = min(stage_units, part.units - first);
      const std::uint8_t* stage = memory + slot * stage_bytes;
      const auto record_of = [&](std::uint32_t j) { return stage + j / F::kHalves * F::kRecordBytes; };
      // Of kTeams tiles the team has had all stages that it will have.
      const std::uint32_t of_x = first / ops::kHopperVectorStageUnits;
      if (i < kTeams) barrier_wait(barriers.x_ready + 8 * of_x, 0);
      const bool any_low = any_low_of(of_x);
      barrier_wait(barriers.full + 8 * slot, parity);
      std::uint32_t j = mine;
      if constexpr (kIsStraight) {
        if (units == ops::kHopperVectorStageUnits) {
#pragma unroll
          for (int pairs = 0; pairs < kMostPairs; ++pairs, j += 2 * kTeamWarps)
            Math::template multiply<2, kHalf>(record_of(j), (first + j + mine) / 2, 0, x_shared, meta_shared, constants,
                                              slots, sums);
        }
      }
#pragma unroll kUnrolled
      for (int pairs = 0; pairs < kMostPairs && j + kTeamWarps < units; ++pairs) {
        const std::uint32_t pair = Shape::kTogether == 2 ? (first + j + mine) / 2 : first + j;
        Math::template multiply<2, kHalf>(record_of(j), pair, 0, x_shared, meta_shared, constants, slots,
                                          sums);
        j += 2 * kTeamWarps;
      }
      // One by one: what is left, then what outliers left of any.
      bool is_low = false;
      if (j < units || any_low)
#pragma unroll 1
        for (;; j += kTeamWarps) {
          if (j >= units) {
            if (is_low || !any_low) break;
            is_low = true, j = mine;
            if (j >= units) break;
          }
          const std::uint32_t unit = first + j, offset = is_low ? low : 0;
          if (is_low && !Math::has_low(flags, unit)) continue;
          Math::template multiply<1, kHalf>(record_of(j), Shape::pair_of(unit), Shape::in_pair(unit),
                                            x_shared + offset, meta_shared + offset, constants, slots, sums,
                                            is_low ? flags + unit * Math::kGroups : nullptr);
        }
      barrier_arrive(barriers.empty + 8 * slot);  // every lane for what it read
      slot += kTeams;
      if (slot >= args.stages) slot -= args.stages, parity ^= 1;
    }
    tile_stage -= part.stages;
    if (part.rotates != 0) tile_stage = (tile_stage + kTeams - 1) % kTeams;
    const std::uint32_t buffer = i % kPartials, round = i / kPartials;
    if (round > 0) barrier_wait(barriers.partial_empty + 8 * buffer, (round - 1) & 1);
    if (has_any)
      Math::store(sums, reinterpret_cast<float*>(memory + args.at.partial) +
                            (buffer * kWarps + place) * Shape::kRows * 16);
    barrier_arrive(barriers.partial_full + 8 * buffer);  // every lane for what it wrote
  }
}

}  // namespace mlxn::sm90
