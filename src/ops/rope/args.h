#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// Strides are in elements.
struct RopeArgs {
  In<void> x;             ///< [seq, heads, head_dim]
  In<int32_t> positions;  ///< [seq]
  In<float> inv_freq;     ///< [pairs], null if there are none
  Out<void> y;            ///< [seq, heads, head_dim]
  int64_t x_row, x_head, y_row, y_head;
  int64_t seq, heads, head_dim, pairs, split_offset;
  int64_t heads_per_group;  ///< of a GPU
  int32_t adjacent;
  float sign;       ///< of the angles
  float magnitude;  ///< of the sines and cosines
};

}  // namespace ops
}  // namespace mlxn
