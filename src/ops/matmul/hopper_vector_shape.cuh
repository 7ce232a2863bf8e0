// How rows of x lie in the columns of Hopper's few-row kernel, and what its parts have in common.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/cluster.cuh"
#include "ops/matmul/hopper_vector.h"
#include "ops/matmul/hopper_vector_formats.cuh"

namespace mlxn::sm90 {

using ops::HopperVectorArgs;

constexpr int kWarps = ops::kHopperVectorWarps;
constexpr std::uint32_t kPartials = ops::kHopperVectorPartials;

/// A block of 32 values of x is a power of two times 16-bit integers; an integer is 256 h + l
/// in two signed bytes, so h and l are two columns of B and every sum is exact in 32 bits. Against f16
/// operands: little or no unpacking of codes, a smaller error, any range of x.
///
/// Where one value outweighs the 31 others of its block together, 16 bits would leave those with fewer than
/// f16's eleven. What such blocks lose is 15 bits more of theirs, `low`, laid out like the rest; their units
/// are multiplied a second time.
///
/// Rows of x are pairs of columns. Where they fill fewer than 8, several blocks share an instruction's
/// columns, a slot each, and B is zero outside its block's slot.
///
/// x in shared memory: [unit][group][column tile][column 8][t 4][step 2][4 bytes]. Beside it, of every block
/// and row of x, eight bytes with its scale and sum (VectorX::store_meta): [unit][block][row]. Two units that
/// a warp takes together (kTogether) lie as one of twice the size, whose last index is theirs, so that one
/// load of 16 bytes has both. Within two columns, places are changed so that a warp's stores go to different
/// banks (place_of): in order, eight would go to one.
template <class FormatOf, int kM>
struct VectorShape {
  using Format = FormatOf;
  static constexpr int kRows = kM;
  static constexpr int kSlots = kM < 4 ? 4 / kM : 1;   // blocks that share the columns
  static constexpr int kTileRows = 4 / kSlots;         // rows of x of one block in one instruction
  static constexpr int kColumnTiles = kM / kTileRows;  // instructions per block
  static constexpr int kGroups = 4 / kSlots;           // of blocks in a unit
  static constexpr int kTeams = ops::hopper_vector_teams(Format::kType), kTeamWarps = kWarps / kTeams;
  static constexpr int kTogether = kM < 4 ? 2 : 1;  // units kTeamWarps apart; of many rows there is no room
  static_assert(kM == 1 || kM == 2 || kM == 4, "16 lanes stage a group of blocks");

  /// Of a unit the number of its pair, which is the same one without kTogether.
  static __device__ __forceinline__ std::uint32_t pair_of(std::uint32_t unit) {
    constexpr std::uint32_t kStep = kTeamWarps * kTogether;
    return unit / kStep * kTeamWarps + unit % kTeamWarps;
  }
  static __device__ __forceinline__ std::uint32_t in_pair(std::uint32_t unit) {
    return unit / kTeamWarps % kTogether;
  }
  /// Bytes from x to its 8 columns of `tile`, from the scales to a block's row; `pair`: see pair_of.
  static __device__ __forceinline__ std::uint32_t x_place(std::uint32_t pair, std::uint32_t group,
                                                          std::uint32_t tile) {
    return ((pair * kGroups + group) * kColumnTiles + tile) * (256 * kTogether);
  }
  /// Bytes from there to what lane 8 `columns` + `number` wants: of two columns, t 0..3 of the first and of
  /// the second. Lanes that make x ready store the same number of all columns at once; so it is changed by
  /// theirs.
  static __device__ __forceinline__ std::uint32_t place_of(std::uint32_t columns, std::uint32_t number) {
    const std::uint32_t change = kTogether == 2 ? columns % 2 | columns / 2 * 4 : columns / 2;
    return (columns * 8 + (number ^ change)) * (8 * kTogether);
  }
  static __device__ __forceinline__ std::uint32_t meta_place(std::uint32_t pair, std::uint32_t block,
                                                             std::uint32_t row) {
    return ((pair * 4 + block) * kM + row) * (8 * kTogether);
  }
};

/// What of w a block has: all its tiles, and of their k a part.
struct Part : ops::HopperVectorPart {
  std::uint32_t first_tile, n_tiles;
  std::uint32_t rank;  // of the block in its cluster
};
__device__ __forceinline__ Part vector_part(const HopperVectorArgs& args) {
  Part part{};
  std::uint32_t cluster = blockIdx.x;
  if (args.parts > 1) part.rank = cluster_rank(), cluster /= ops::kHopperVectorMostParts;
  static_cast<ops::HopperVectorPart&>(part) = args.part[part.rank];
  part.first_tile = cluster * args.tiles_per_block;
  part.n_tiles = min(args.tiles_per_block, args.tiles - part.first_tile);
  return part;
}

/// The tile of w that is the i-th of all blocks' together.
__device__ __forceinline__ std::uint32_t vector_tile(const HopperVectorArgs& args, std::uint32_t i) {
  return args.half_tiles == 0 ? i : i / 2 + i % 2 * args.half_tiles;
}

/// The block's barriers: of the stages, of buffers for the warps' sums, of those for the other block's, and
/// of x, in this order.
struct Barriers {
  Barrier full, empty;
  Barrier partial_full, partial_empty;
  Barrier other_full, other_empty;
  Barrier x_ready;  // of kHopperVectorStageUnits units each, which no stage crosses

  __device__ __forceinline__ Barriers(const HopperVectorArgs& args, const std::uint8_t* memory)
      : full(shared_address(memory + args.at.barriers)),
        empty(full + 8 * args.stages),
        partial_full(empty + 8 * args.stages),
        partial_empty(partial_full + 8 * kPartials),
        other_full(partial_empty + 8 * kPartials),
        other_empty(other_full + 8 * kPartials),
        x_ready(other_empty + 8 * kPartials) {}

  /// All but those of the stages that are requested first, the turn of one of `turns` threads. rows: of x that
  /// the instance is made for.
  __device__ __forceinline__ void init(const HopperVectorArgs& args, const Part& part, std::uint32_t turn,
                                       std::uint32_t turns, std::uint32_t team_warps, std::uint32_t rows) const {
#pragma unroll 1
    for (std::uint32_t i = turn; i < args.stages; i += turns) {
      if (i >= args.prefetch) barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, team_warps * 32);
    }
    // The ring has less stages than there are threads, most often.
    const std::uint32_t back = turns - 1 - turn;
    if (back < kPartials) {
      barrier_init(partial_full + 8 * back, kWarps * 32);
      barrier_init(partial_empty + 8 * back, 32);
      barrier_init(other_full + 8 * back, 1);
      barrier_init(other_empty + 8 * back, 1);
    }
    constexpr std::uint32_t kUnits = ops::kHopperVectorStageUnits;
#pragma unroll 1
    for (std::uint32_t i = (back + turns - kPartials) % turns; i * kUnits < part.units; i += turns)
      barrier_init(x_ready + 8 * i, (min(part.units - i * kUnits, kUnits) * rows * 16 + 31) / 32 * 32);
    barrier_init_fence();
  }
};

}  // namespace mlxn::sm90
