#pragma once

#include "portable/args.h"
#include "quant/gpu_weight.h"

namespace mlxn {
namespace ops {

/// Blocks of the file's layout, taken apart into fields.
struct PrepareWeightArgs {
  In<uint8_t> from;        ///< block 0 of `blocks`
  Out<uint8_t> to;         ///< the prepared matrix
  int64_t blocks;
  int64_t first;           ///< of the matrix, where `blocks` begin
  int64_t offset[4];       ///< of each field in the prepared matrix
  uint32_t step[4];        ///< from block to block there
  uint32_t from_offset[4], bytes[4];  ///< each field in a block; no bytes: no field
  uint32_t block_bytes;
  uint32_t group_blocks;   ///< that a group takes
};

}  // namespace ops
}  // namespace mlxn
