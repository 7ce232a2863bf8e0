#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// Strides are in elements.
struct CachedAttentionArgs {
  In<int32_t> positions;  // [seq]
  In<float> inv_freq;     // [pairs], null if there are none
  In<float> q;            // [seq, heads, head_dim]
  In<float> k_new, v_new;  // [seq, kv_heads, head_dim]
  InOut<void> k_cache, v_cache;  // [kv_heads, capacity, head_dim]
  Out<float> y;           // [seq, heads, head_dim]
  In<float> sinks;        // [heads] or null
  int64_t q_row, q_head;
  int64_t y_row, y_head;
  int64_t k_row, k_head, v_row, v_head;                    // of k_new and v_new
  int64_t k_cache_head, k_cache_slot, v_cache_head, v_cache_slot;
  Index position, kv_len;
  int64_t window;  // <= 0: none
  int32_t seq, group, head_dim, capacity;
  int32_t cluster_shift;  // the blocks of a key head are a cluster of 1 << cluster_shift
  int32_t pairs, split_offset, adjacent;
  float magnitude, scale, softcap;
};
static_assert(sizeof(CachedAttentionArgs) <= 256, "a launch struct");

}  // namespace ops
}  // namespace mlxn
