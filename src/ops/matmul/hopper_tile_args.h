#pragma once

// Launch structs of the products of weight records and of dense weights on Hopper's tensor cores for more than
// a few rows of x: what host code and the kernels share.

#include "backends/gpu/tensor_map.h"
#include "portable/args.h"

namespace mlxn {
namespace ops {

/// x as the tile kernels read it, where it is not so already: rows of f16 (or bf16), `planes` times 64 elements each, zeros behind
/// k. A row is multiplied by a power of two that brings its largest magnitude into [2^12, 2^13); `scales` has what undoes it, and
/// zeros for the tokens from m on that a tile has. Rows that are not finite stay so.
/// With a norm, x times its weights takes the place of x, which is f32 then; what else rms_norm does to a row is in its scale.
struct HopperStageArgs {
  In<void> x;
  In<float> norm;  ///< [k], at a multiple of 16 bytes; of matmul_hopper_stage_normed alone
  Out<uint16_t> rows;
  Out<float> scales;   ///< [scale_count], a whole number of tiles
  int64_t x_stride;  ///< elements from row to row
  uint32_t m, k;
  uint32_t planes;
  uint32_t scale_count;
  uint32_t x_type;     ///< quant::kElementF32...
  uint32_t rows_type;  ///< kElementF16 or kElementBf16
  float norm_eps;
};

constexpr uint32_t kHopperTileSilu = 1, kHopperTileGelu = 2;

/// y[m, n] = x * w^T; set by the plan (hopper_tile.h), the pointers and maps by the caller.
struct HopperTileArgs {
  gpu::TensorMap w;  ///< see HopperTilePlan::map
  gpu::TensorMap x;  ///< see HopperTilePlan::x_map
  In<float> x_scales;     ///< of rows of x, to the end of a tile; null: 1
  In<int32_t> exponents;  ///< [at least n]: weights of a row are below 2^exponent, whatever codes records have
  Out<void> y;
  In<void> residual;         ///< [m, n] of y's type, added to y; null: none. May be y itself
  InOut<float> workspace;    ///< sums over parts of k, if there are several, or several pairs of them
  InOut<uint32_t> counters;  ///< one a tile of y, or one for each half of its tokens; zero before and after
  int64_t y_stride, residual_stride;  ///< elements from row to row
  uint32_t m, n;
  uint32_t steps;        ///< of 128 k
  uint32_t split_steps;  ///< of a part
  uint32_t row_tiles, token_tiles;
  uint32_t token_group;  ///< token tiles that blocks walk side by side, a power of two
  uint32_t y_type;       ///< quant::kElementF32...
  uint32_t prefetch;     ///< stages of weights asked for before the wait for the kernel before
  uint32_t gate_rows;    ///< if not 0: y is act(x * w[0 : n]^T) * (x * w[n : 2 n]^T), n of both; w's map has both as planes
  uint32_t activation;
  uint32_t paired;       ///< 1: parts of k are two and two in clusters, which add their sums up before the workspace
};
static_assert(sizeof(HopperTileArgs) == 384, "a multiple of the maps' alignment");

}  // namespace ops
}  // namespace mlxn
