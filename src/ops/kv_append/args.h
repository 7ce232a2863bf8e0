#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// One of the two: new rows and their cache. Strides are in elements.
struct KvAppendSide {
  int64_t new_row, new_head, cache_head, cache_slot;
  int32_t head_dim, f16_cache;
};
struct KvAppendArgs {
  In<float> k_new, v_new;      // [seq, kv_heads, head_dim]
  Out<void> k_cache, v_cache;  // [kv_heads, capacity, head_dim]
  KvAppendSide k, v;
  int64_t seq, kv_heads, capacity;
  Index position;
  int64_t ring;
};

}  // namespace ops
}  // namespace mlxn
