#pragma once

#include "ops/kv_append/args.h"

namespace mlxn {
namespace ops {

/// Strides are in elements.
struct RopeAppendArgs {
  In<int32_t> positions;  // [seq]
  In<float> inv_freq;     // [pairs], null if there are none
  InOut<float> q, k_new;  // [seq, heads, head_dim], [seq, kv_heads, head_dim]
  In<float> v_new;        // [seq, kv_heads, head_dim_v]
  Out<void> k_cache, v_cache;
  int64_t q_row, q_head;
  KvAppendSide k, v;
  int64_t seq, heads, kv_heads, capacity;
  Index position;
  int64_t pairs, split_offset;
  int32_t ring, adjacent;
  float magnitude;
  uint32_t heads_per_group;  ///< of q, k and v counted together
};
static_assert(sizeof(RopeAppendArgs) <= 256, "a launch struct");

}  // namespace ops
}  // namespace mlxn
