#pragma once

// Launch structs of the products of weight records and of dense weights on Hopper's tensor cores for more than
// a few rows of x: what host code and the kernels share.

#include "backends/gpu/tensor_map.h"
#include "portable/args.h"

namespace mlxn {
namespace ops {

/// x as the tile kernels read it: f16 (or bf16) in the order of shared memory, so that a stage of it is one run of
/// bytes.
///   image  [tiles of tile_tokens tokens][planes of 64 k][tile_tokens][128 bytes], each row of 128 bytes in
///   the 128-byte
///          swizzle: its 16-byte pieces change places by xor with token % 8
/// A row is multiplied by a power of two that brings its largest magnitude into [2^12, 2^13); `scales` has
/// the powers that undo it. Rows that are not finite stay so. Tokens from m on and k from x's end on are
/// zeros.
struct HopperStageArgs {
  In<void> x;
  Out<uint8_t> image;
  Out<float> scales;       ///< [tokens]
  Out<uint32_t> counters;  ///< set to zero for the product's blocks; none: nothing to set
  int64_t x_stride;        ///< elements from row to row
  uint32_t m, k;
  uint32_t planes;
  uint32_t tile_tokens;  ///< a power of two
  uint32_t x_type;       ///< quant::kElementF32...
  uint32_t image_type;   ///< kElementF16 or kElementBf16
  uint32_t counter_count;
};

/// y[m, n] = x * w^T; set by the plan (hopper_tile.h), the pointers by the caller.
struct HopperTileArgs {
  gpu::TensorMap w;  ///< see HopperTilePlan::map
  In<uint8_t> x;     ///< HopperStageArgs::image
  In<float> x_scales;
  In<int32_t> exponents;  ///< [at least n]: weights of a row are below 2^exponent, whatever codes records have
  Out<void> y;
  InOut<float> workspace;    ///< sums over parts of k, if splits > 1
  InOut<uint32_t> counters;  ///< one a tile of y, zero before and after, if splits > 1
  int64_t y_stride;          ///< elements from row to row
  uint32_t m, n;
  uint32_t steps;        ///< of 128 k
  uint32_t split_steps;  ///< of a part
  uint32_t row_tiles, token_tiles;
  uint32_t token_group;  ///< token tiles that blocks walk side by side
  uint32_t y_type;       ///< quant::kElementF32...
  uint32_t prefetch;     ///< stages of weights asked for before the wait for the kernel before
};
static_assert(sizeof(HopperTileArgs) == 256, "a multiple of the map's alignment");

}  // namespace ops
}  // namespace mlxn
