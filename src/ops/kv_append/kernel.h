#pragma once

#include "ops/kv_append/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// A group takes the key and the value of one token and head: threads beside each other elements beside each other. Bound by
/// memory; for one token by the launch.
struct KvAppend {
  using Args = ops::KvAppendArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 128;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    // The heads of a token lie beside each other in new rows.
    const int64_t token = t.group.x / uint32_t(args.kv_heads), head = t.group.x % uint32_t(args.kv_heads);
    const int64_t position = load(args.position) + token;
    const int64_t slot = args.ring != 0 ? position % args.capacity : position;
    side(args.k, args.k_new.ptr, args.k_cache.ptr, t.index, token, head, slot);
    side(args.v, args.v_new.ptr, args.v_cache.ptr, t.index, token, head, slot);
  }

  static MLXN_FN void side(const ops::KvAppendSide& s, MLXN_GLOBAL const float* from, MLXN_GLOBAL void* cache, uint32_t index,
                           int64_t token, int64_t head, int64_t slot) {
    MLXN_GLOBAL const float* row = from + token * s.new_row + head * s.new_head;
    const int64_t at = head * s.cache_head + slot * s.cache_slot;
    if (s.f16_cache != 0) {
      for (uint32_t i = index; i < uint32_t(s.head_dim); i += kThreads) store((MLXN_GLOBAL f16*)cache + at + i, load(row + i));
    } else {
      for (uint32_t i = index; i < uint32_t(s.head_dim); i += kThreads) store((MLXN_GLOBAL float*)cache + at + i, load(row + i));
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) KERNEL(kv_append, KvAppend)
