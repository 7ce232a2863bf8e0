// Which tile a block works on. Plain functions of an index, the same on host and device.
#pragma once

#if defined(__CUDACC__)
#define MLXN_BOTH __host__ __device__ __forceinline__
#else
#define MLXN_BOTH inline
#endif

namespace mlxn::sm90 {

/// Order of a grid of tiles. Blocks that run together take neighbouring indices; walking `group` token tiles
/// side by side over all row tiles makes their common weights and activations a small part of the L2: a wave
/// of R * C tiles reads R row tiles and C token tiles, least when R * (bytes of a row tile) = C * (of a token
/// tile).
struct TileOrder {
  int row_tiles;
  int token_tiles;
  int group;

  struct Place {
    int row_tile;
    int token_tile;
  };

  MLXN_BOTH int count() const { return row_tiles * token_tiles; }

  MLXN_BOTH Place at(int index) const {
    const int per_group = group * row_tiles;
    const int first = index / per_group * group;
    const int width = token_tiles - first < group ? token_tiles - first : group;
    const int inside = index - first * row_tiles;
    return {inside / width, first + inside % width};
  }
};

/// Part `part` of `parts` of [0, steps): parts differ by at most one step, and together they are the whole.
struct StepRange {
  int begin;
  int end;
};

MLXN_BOTH StepRange split_steps(int steps, int part, int parts) {
  return {static_cast<int>(static_cast<long long>(steps) * part / parts),
          static_cast<int>(static_cast<long long>(steps) * (part + 1) / parts)};
}

/// The steps of `tiles` tiles in a row, cut into `blocks` ranges that differ by at most one step.
struct StepStream {
  int steps;  // of a tile
  int tiles;
  int blocks;

  /// First step of a block's range, counted over all tiles; begin(blocks) is the end.
  MLXN_BOTH int begin(int block) const {
    return static_cast<int>(static_cast<long long>(steps) * tiles * block / blocks);
  }

  /// The block whose range holds step `unit`.
  MLXN_BOTH int owner(int unit) const {
    return static_cast<int>(((unit + 1ll) * blocks - 1) / (static_cast<long long>(steps) * tiles));
  }
};

}  // namespace mlxn::sm90
