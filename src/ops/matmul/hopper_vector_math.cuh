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
                       kColumnTiles = Shape::kColumnTiles, kGroups = Shape::kGroups, kParts = F::kParts;
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
    uint2 b[2][kSlots] = {};
    bool is_mine[kSlots];

    __device__ __forceinline__ Slots() {
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot)
        is_mine[slot] = kSlots == 1 || static_cast<int>(threadIdx.x % 32 / 4) / (2 * kTileRows) == slot;
    }
  };

  /// Adds kCount units to the sums: half kHalf of `record` and, kTeamWarps units on, of later records.
  /// groups: null, or flags of the unit's groups of blocks, those without being left out.
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

/// What a math warp does once x is ready: its team takes every kTeams-th stage, of which the warp takes every
/// kTeamWarps-th unit. Which ones of a tile depends on the tile alone, not on what its block has. kHalf: of
/// large records, the half that its units are.
template <class Shape, std::uint32_t kHalf>
__device__ __forceinline__ void vector_multiply(const HopperVectorArgs& args, std::uint8_t* memory,
                                                const Part& part, std::uint32_t warp,
                                                const Barriers& barriers) {
  using F = typename Shape::Format;
  using Math = VectorMath<Shape>;
  const std::uint32_t lane = threadIdx.x % 32, stage_bytes = args.stage_records * F::kRecordBytes;
  const std::uint8_t *x_shared = memory + args.at.x, *meta_shared = memory + args.at.meta;
  const std::uint8_t* flags = memory + args.at.flags;
  const std::uint32_t low = args.at.low - args.at.x;
  std::uint32_t of_warps = 0;
#pragma unroll
  for (std::uint32_t i = 0; i < kWarps; i += 4)
    of_warps |= *reinterpret_cast<const std::uint32_t*>(flags + part.units * 4 + i);
  const bool any_low = of_warps != 0;
  // The block's stages that are the team's.
  std::uint32_t slot = (warp / kTeamWarps + part.first_tile * part.stages) % kTeams, parity = 0;
  std::uint32_t tile_stage = slot;
  typename Math::Slots slots;
  for (std::uint32_t i = 0; i < part.n_tiles; ++i) {
    typename Math::Sums sums;
    Math::clear(sums);
    // Where its sums go: those of the team that has the tile's first stage come first.
    const std::uint32_t place = tile_stage * kTeamWarps + warp % kTeamWarps;
    for (; tile_stage < part.stages; tile_stage += kTeams) {
      const std::uint32_t first = tile_stage * args.stage_records;
      const std::uint32_t units = min(args.stage_records, part.records - first) * F::kHalves;
      const std::uint8_t* stage = memory + slot * stage_bytes;
      barrier_wait(barriers.full + 8 * slot, parity);
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
      if (lane == 0) barrier_arrive(barriers.empty + 8 * slot);
      slot += kTeams;
      if (slot >= args.stages) slot -= args.stages, parity ^= 1;
    }
    tile_stage -= part.stages;
    const std::uint32_t buffer = i % kPartials, round = i / kPartials;
    if (round > 0) barrier_wait(barriers.partial_empty + 8 * buffer, (round - 1) & 1);
    Math::store(sums, reinterpret_cast<float*>(memory + args.at.partial) +
                          (buffer * kWarps + place) * Shape::kRows * 16);
    barrier_arrive(barriers.partial_full + 8 * buffer);  // every lane for what it wrote
  }
}

}  // namespace mlxn::sm90
