#pragma once

#include <cstdint>

#include "portable/args.h"

namespace mlxn::ops {

/// Keys per tile of the online softmax. Tiles start at multiples of it, so a row's arithmetic does not depend on the rows
/// that share its tiles.
inline constexpr int kAttentionTile = 64;
/// Keys per part of a split row; a multiple of the tile. A constant, so that the split does not depend on the threads.
inline constexpr int kAttentionPart = 256;
/// Query rows of one key head up to which the split kernel runs.
inline constexpr int kAttentionSplitRows = 32;
/// Query rows per work item of the tiled kernel.
inline constexpr int kAttentionBlock = 64;
inline constexpr int kAttentionMaxDim = 512;
/// Of p0, either sign.
inline constexpr std::int64_t kAttentionMaxPosition = std::int64_t{1} << 40;

/// Floats of a row's state: the output, padded to the widest vector, then the maximum and the sum in a line of their own.
constexpr int attention_padded_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr int attention_state_floats(int head_dim) { return attention_padded_dim(head_dim) + 16; }
/// Scratch floats per thread, for either kernel.
constexpr int attention_work_floats(int head_dim) {
  const int dim = attention_padded_dim(head_dim);
  const int tiled = kAttentionBlock * (dim + kAttentionTile + attention_state_floats(head_dim)) + 2 * kAttentionTile * dim + 4 * dim;
  const int split = kAttentionSplitRows * (dim + kAttentionTile);
  return tiled > split ? tiled : split;
}

/// Strides are in elements.
struct AttentionArgs {
  In<float> q;        // [batch, heads, seq, head_dim]
  In<void> k;         // [batch, kv_heads, capacity, head_dim]
  In<void> v;
  Out<float> y;       // [batch, heads, seq, head_dim]
  In<float> sinks;    // [heads] or null
  Out<float> lse;     // [batch, heads, seq] contiguous, or null
  InOut<float> work;  // per thread `work_floats`, then (split kernel) the states of [batch, heads, seq, max_parts]
  std::int64_t q_batch, q_head, q_row;
  std::int64_t y_batch, y_head, y_row;
  std::int64_t k_batch, k_head, k_slot;
  std::int64_t v_batch, v_head, v_slot;
  std::int64_t seq, capacity;
  std::int64_t kv_len, p0, ring_start;  // may be graph parameters
  std::int32_t batch, heads, kv_heads, head_dim;
  std::int32_t causal, p0_is_given;  // p0 defaults to kv_len - seq
  std::int64_t window;               // <= 0: none
  std::int32_t work_floats;          // per thread
  std::int32_t max_parts;            // parts of a full cache
  float scale, softcap;
};
static_assert(sizeof(AttentionArgs) <= 256, "a launch struct");

}  // namespace mlxn::ops
