#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// Keys per tile of the online softmax. Tiles start at multiples of it, so a row's arithmetic does not depend on the rows
/// that share its tiles.
constexpr int kAttentionTile = 64;
/// Keys per part of a split row on a CPU; a multiple of the tile. A constant, so that the split does not depend on the threads.
constexpr int kAttentionPart = 256;
/// A GPU cuts the keys that a row may see into at most so many parts of whole tiles, a power of two each: enough to occupy it
/// however long the cache is, and few enough to be merged by one group.
constexpr int kAttentionGpuParts = 128;
/// Query rows of one key head up to which the split kernel runs.
constexpr int kAttentionSplitRows = 32;
/// Query rows per work item of the tiled kernel.
constexpr int kAttentionBlock = 64;
constexpr int kAttentionMaxDim = 512;
/// Of p0, either sign.
constexpr int64_t kAttentionMaxPosition = int64_t(1) << 40;

/// Start of the running maximum: far below any logit, yet exp(-inf - start) is an exact 0 without a special case.
constexpr float kAttentionLowest = -1.7014117e38f;

/// Floats of a row's state: the output, padded to the widest vector, then the maximum and the sum in a line of their own.
constexpr int attention_padded_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr int attention_state_floats(int head_dim) { return attention_padded_dim(head_dim) + 16; }
/// Scratch floats per thread of a CPU, for either kernel.
constexpr int attention_work_floats(int head_dim) {
  const int dim = attention_padded_dim(head_dim);
  const int tiled = kAttentionBlock * (dim + kAttentionTile + attention_state_floats(head_dim)) + 2 * kAttentionTile * dim + 4 * dim;
  const int split = kAttentionSplitRows * (dim + kAttentionTile);
  return tiled > split ? tiled : split;
}

/// Bits of AttentionArgs::flags.
constexpr int32_t kAttentionCausal = 1;
constexpr int32_t kAttentionHasP0 = 2;   ///< otherwise p0 is kv_len - seq
constexpr int32_t kAttentionAligned = 4; ///< rows of q, k and v start at 16-byte addresses and have a multiple of 16 bytes

/// Strides are in elements.
struct AttentionArgs {
  In<float> q;        // [batch, heads, seq, head_dim]
  In<void> k;         // [batch, kv_heads, capacity, head_dim]
  In<void> v;
  Out<float> y;       // [batch, heads, seq, head_dim]
  In<float> sinks;    // [heads] or null
  Out<float> lse;     // [batch, heads, seq] contiguous, or null
  InOut<float> work;  // CPU: per thread attention_work_floats, then (split kernel) states [batch, heads, seq, parts];
                      // GPU: states [parts][batch, heads, seq]
  int64_t q_batch, q_head, q_row;
  int64_t y_batch, y_head, y_row;
  int64_t k_batch, k_head, k_slot;
  int64_t v_batch, v_head, v_slot;
  int64_t seq, capacity;
  Index kv_len, p0, ring_start;
  int64_t window;  // <= 0: none
  int32_t batch, heads, kv_heads, head_dim;
  float scale, softcap;
  int32_t flags;
  int32_t part_shift;  // GPU: a part has 1 << part_shift keys
};
static_assert(sizeof(AttentionArgs) <= 256, "a launch struct");

}  // namespace ops
}  // namespace mlxn
