// Of cuda_tile_sm90a.cuh: what a kernel of tiles is made of (Config), what a block computes (Item), and where in it
// a thread that holds sums is (Place).
#pragma once

#include <cstdint>

#include "cuda_blocks/pipeline.cuh"
#include "ops/matmul/cuda_tile_formats_sm90a.cuh"
#include "ops/matmul/hopper_tile_args.h"
#include "ops/matmul/hopper_tile_shape.h"
#include "quant/gpu_weight.h"

namespace mlxn::tile {

using ops::HopperTileArgs;

template <class F, Shape kShapeT>
struct Config {
  using Format = F;
  static constexpr Shape kShape = kShapeT;
  static constexpr Form kForm = kShape.form;
  static constexpr int kTokens = kShape.tokens;
  static constexpr int kRows = kShape.rows();
  static constexpr int kThreads = kShape.threads();
  static constexpr int kBlocksPerSm = kShape.blocks_per_sm;
  static constexpr int kKGroups = kShape.k_groups;
  static constexpr int kGroups = kShape.row_groups * kKGroups;
  static constexpr int kRowThreads =
      128 * kShape.row_groups;               // the threads that hold the block's sums at the end
  static constexpr int kSums = kTokens / 2;  // per thread
  static constexpr int kXPlanes = kShape.x_planes;
  static constexpr std::uint32_t kXStages = kShape.x_stages;
  static constexpr std::uint32_t kWStages = kShape.w_stages;
  static constexpr std::uint32_t kPlaneBytes = kTokens * 128;
  static constexpr std::uint32_t kXBytes = kShape.x_stage_bytes();
  static constexpr std::uint32_t kWBytes = kShape.w_stage_bytes();
  static constexpr bool kByRecord = kShape.by_record != Nesting::none;
  static constexpr bool kIsFew = kShape.few;
  static constexpr bool kHasSums = kShape.x_sums;
  // Whether lanes fetch all scales of half a record from each other beforehand (SharedInRow). Look-ups use the pipe of
  // shuffles too: iq4_xs at 128 tokens 32.4 -> 31.0 us at 4096x14336 on an H200. q4_K 29.9 -> 30.5, q6_K 33.9 -> 34.2.
  static constexpr bool kFetchesScales = kKGroups == 1 && kShape.look_up != 0;
  static constexpr int kSumWarps = 2;  // of the producers' warpgroup
  static constexpr std::uint32_t kSumBytes = kShape.sum_stage_bytes();
  static constexpr std::uint32_t kSumOffset = kShape.sum_offset();
  static constexpr std::uint32_t kWOffset = kShape.w_offset();
  static constexpr std::uint32_t kXBarriers = kShape.ring_bytes();
  static constexpr std::uint32_t kWBarriers = kXBarriers + sm90::StageBarriers<kXStages>::kBytes;
  static constexpr std::uint32_t kSummed = kWBarriers + sm90::StageBarriers<kWStages>::kBytes;  // one a stage of x
  // Two barriers of blocks with two k groups: all have read their last stage; the second's sums lie there.
  static constexpr std::uint32_t kExchange = kShape.exchange_offset();
  static constexpr std::uint32_t kTable = kShape.table_offset(), kTableStride = kShape.look_up;
  static constexpr int kCopies = kShape.copies();
  static constexpr std::uint32_t kPieceBytes =
      kShape.half_bytes / kCopies;  // of a record, that one copy moves
  static constexpr int kRecordColumns = (F::kCodeBytes * (F::kSuper ? 2 : 1) + F::kRowBytes) / 8;
  static constexpr bool kIsDense = kShape.is_dense;
  /// Whether a tile's first instruction sets its sums, instead of adding to zeros.
  static constexpr bool kSetsSums = kTokens == 256;
  static constexpr bool kHasCluster = kForm == Form::pair;
  static constexpr bool kCanPair = kShape.can_pair();
  static constexpr bool kIsScaled = F::kIsScaled;
  static constexpr std::uint32_t kWPlaneBytes = kRows * 128;  // 64 k of dense weights

  /// Arrivals that free a stage of weights: a lane of each warp, or every one where they have read what warps write.
  static constexpr int kWReleases = 4 * kShape.row_groups * (kIsFew && kHasSums ? 32 : 1);

  // Registers are handed out to whole warpgroups: all start with the same share, the producer gives most
  // back.
  static constexpr int kStartRegisters = 65536 / (kThreads * kBlocksPerSm) / 8 * 8;
  static constexpr int kProducerRegisters = kTokens == 256 ? 24 : kHasSums ? 56 : 32;
  static constexpr int kConsumerShare =
      (kStartRegisters * (kGroups + 1) - kProducerRegisters) / kGroups / 8 * 8;
  static constexpr int kConsumerRegisters = kConsumerShare > 240 ? 240 : kConsumerShare;

  static_assert(kShape.half_bytes == int(F::kCodeBytes + F::kRowBytes));
  static_assert(kTokens % (kIsFew ? 8 : 16) == 0 && kTokens <= (kIsFew ? 16 : 256) &&
                kShape.shared_bytes() <= kSharedBytes);
  static_assert(!kIsDense || (kWBytes == 2 * kWPlaneBytes && kCopies == 2 && kXPlanes == 1 && kKGroups == 1));
  static_assert(kXBytes % 1024 == 0 && kWBytes / kCopies % 128 == 0 && kPieceBytes % 16 == 0);
  static_assert(!kByRecord || kXPlanes == 2);
  static_assert(kForm != Form::pair || kXPlanes == 1);  // halves of the tokens are halves of a stage
  static_assert(kXStages >= 2 && kWStages >= 2 && kXStages % kShape.turn() == 0 && kWStages % kShape.turn() == 0);
  static_assert(!kHasSums || kXStages % kSumWarps == 0);
  static_assert(kKGroups == 1 || (kForm == Form::parts && kXPlanes == 2));
  static_assert(kKGroups == 1 ||
                kRowThreads * kSums * 4 <= int(kXBarriers));  // sums change hands in the stages' memory
};

/// A tile, or a part of its k.
struct Item {
  std::uint32_t row_tile, token_tile, begin, end;
};

template <class C, class Work>
__device__ __forceinline__ void for_each_item(const HopperTileArgs& args, const Work& work) {
  if constexpr (C::kForm == Form::tiles) {
    // Blocks that run together take neighbouring tiles, `token_group` token tiles side by side. A block goes from one
    // to the next without a division, most often: no product is under way meanwhile.
    const std::uint32_t group = args.token_group, per_group = group * args.row_tiles;
    std::uint32_t first = 0, inside = blockIdx.x;
    for (std::uint32_t i = blockIdx.x; i < args.row_tiles * args.token_tiles; i += gridDim.x, inside += gridDim.x) {
      if (inside >= per_group) {
        inside -= per_group, first += group;
        if (inside >= per_group) {
          const std::uint32_t groups = inside / per_group;
          inside -= groups * per_group, first += groups * group;
        }
      }
      const std::uint32_t left = args.token_tiles - first, width = left < group ? left : group;
      std::uint32_t row_tile = inside >> (31 - __clz(int(group)));
      if (left < group) row_tile = inside / left;
      work(Item{row_tile, first + inside - row_tile * width, 0, args.steps});
    }
  } else {
    const std::uint32_t part = C::kForm == Form::pair ? blockIdx.x & 1 : blockIdx.z;
    const std::uint32_t begin = part * args.split_steps;
    const std::uint32_t end = begin + args.split_steps < args.steps ? begin + args.split_steps : args.steps;
    work(Item{C::kForm == Form::pair ? blockIdx.x >> 1 : blockIdx.x, blockIdx.y, begin, end});
  }
}

/// Whether the block and its neighbour in a cluster of two have parts of k of the same tile.
template <class C>
__device__ __forceinline__ bool is_paired(const HopperTileArgs& args) {
  return C::kCanPair && args.paired != 0;
}

/// What a consumer thread knows of its place.
struct Place {
  std::uint32_t lane;
  std::uint32_t thread;  // in the warpgroups that hold sums
  std::uint32_t row;     // of sums[0] inside the block's tile
  std::uint32_t token;   // likewise
};

/// The row of w whose sums are the thread's first: with a gate, the first half of a tile's rows are the
/// gate's.
template <class C>
__device__ __forceinline__ std::uint32_t weight_row(const HopperTileArgs& args, const Item& item,
                                                    const Place& me) {
  constexpr std::uint32_t kHalf = C::kRows / 2;
  if (args.gate_rows == 0) return item.row_tile * C::kRows + me.row;
  return item.row_tile * kHalf + me.row + (me.row < kHalf ? 0 : args.gate_rows - kHalf);
}

template <std::uint32_t kStages>
__device__ __forceinline__ void free_stage(sm90::StageBarriers<kStages> ring, std::uint32_t slot,
                                           const Place& me) {
  if (me.lane == 0) sm90::barrier_arrive(ring.empty(slot));
}

/// Of rows row and row + 8; those past the weights' end have sums that nobody stores.
template <class F>
__device__ __forceinline__ Scaling scaling_of(const HopperTileArgs& args, std::uint32_t row) {
  Scaling scaling;
#pragma unroll
  for (std::uint32_t upper = 0; upper < 2; ++upper) {
    const std::uint32_t at = row + 8 * upper;
    scaling.rows[upper] = F::scaling(at < args.n + args.gate_rows ? __ldg(args.exponents.ptr + at) : 0,
                                     static_cast<int>(upper));
  }
  return scaling;
}

/// Scales of tokens, which the kernel before may have written. A tile's are brought to the first-level cache
/// by who copies x, long before they are wanted: from the L2 they take microseconds while all blocks end.
__device__ __forceinline__ float load_scale(const float* from) {
  float v;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(__cvta_generic_to_global(from)) : "memory");
  return v;
}
__device__ __forceinline__ float2 load_scales(const float* from) {
  float2 v;
  asm volatile("ld.global.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
}

}  // namespace mlxn::tile
