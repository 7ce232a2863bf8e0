#pragma once

#include "ops/rope/angle.h"
#include "ops/rope_append/args.h"

namespace mlxn {
namespace gpu {

/// A group takes one token and a few heads, those of q first, then of k and v; threads beside each other take pairs beside each
/// other. Bound by memory, at a few tokens by the launch.
struct RopeAppend {
  using Args = ops::RopeAppendArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 64;

  static MLXN_FN void cache(const ops::KvAppendSide& s, MLXN_GLOBAL void* to, int64_t at, float v) {
    if (s.f16_cache != 0) store((MLXN_GLOBAL f16*)to + at, v);
    else store((MLXN_GLOBAL float*)to + at, v);
  }

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t token = t.group.x, first_head = int64_t(t.group.y) * args.heads_per_group;
    const int64_t k_heads = args.heads + args.kv_heads, all = k_heads + args.kv_heads;
    const int64_t end_head = min(all, first_head + int64_t(args.heads_per_group)), end_turned = min(k_heads, end_head);
    const int64_t position = load(args.position) + token;
    const int64_t slot = args.ring != 0 ? position % args.capacity : position;
    MLXN_GLOBAL float* q = args.q.ptr + token * args.q_row;
    MLXN_GLOBAL float* k = args.k_new.ptr + token * args.k.new_row;
    const int32_t turn = args.positions.ptr[token];

    for (int64_t p = t.index; p < args.pairs; p += kThreads) {
      if (first_head >= end_turned) break;
      const SineCosine angle = sine_cosine(turn, args.inv_freq.ptr[p]);
      const float sine = angle.sine * args.magnitude, cosine = angle.cosine * args.magnitude;
      const int64_t first = args.adjacent != 0 ? 2 * p : p, second = first + args.split_offset;
      for (int64_t h = first_head; h < end_turned; ++h) {
        MLXN_GLOBAL float* row = h < args.heads ? q + h * args.q_head : k + (h - args.heads) * args.k.new_head;
        const float a = load(row + first), b = load(row + second);
        const float a_turned = a * cosine - b * sine, b_turned = b * cosine + a * sine;
        store(row + first, a_turned);
        store(row + second, b_turned);
        if (h >= args.heads) {
          const int64_t at = (h - args.heads) * args.k.cache_head + slot * args.k.cache_slot;
          cache(args.k, args.k_cache.ptr, at + first, a_turned);
          cache(args.k, args.k_cache.ptr, at + second, b_turned);
        }
      }
    }

    // What lies outside the pairs, as it is.
    const int64_t turned = args.adjacent != 0 ? 2 * args.pairs : args.pairs;
    const int64_t resumed = args.adjacent != 0 ? turned : args.split_offset;
    const int64_t last = args.adjacent != 0 ? turned : args.split_offset + args.pairs;
    for (int64_t h = max(first_head, args.heads); h < end_turned; ++h) {
      MLXN_GLOBAL const float* row = k + (h - args.heads) * args.k.new_head;
      const int64_t at = (h - args.heads) * args.k.cache_head + slot * args.k.cache_slot;
      for (int64_t i = turned + t.index; i < resumed; i += kThreads) cache(args.k, args.k_cache.ptr, at + i, load(row + i));
      for (int64_t i = last + t.index; i < args.k.head_dim; i += kThreads) cache(args.k, args.k_cache.ptr, at + i, load(row + i));
    }
    for (int64_t h = max(first_head, k_heads); h < end_head; ++h) {
      MLXN_GLOBAL const float* row = args.v_new.ptr + token * args.v.new_row + (h - k_heads) * args.v.new_head;
      const int64_t at = (h - k_heads) * args.v.cache_head + slot * args.v.cache_slot;
      for (int64_t i = t.index; i < args.v.head_dim; i += kThreads) cache(args.v, args.v_cache.ptr, at + i, load(row + i));
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) KERNEL(rope_append, RopeAppend)
