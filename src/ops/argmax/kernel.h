#pragma once

#include "ops/argmax/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

template <class T>
struct ArgmaxResult {
  static MLXN_FN void store(const ops::ArgmaxGpuArgs& args, int64_t row, uint64_t best) {
    const uint32_t index = best == 0 ? 0 : ~uint32_t(best);
    args.ids.ptr[row] = index;
    if (!args.values.ptr) return;
    args.values.ptr[row] = best == 0 ? -infinity() : load((MLXN_GLOBAL const T*)args.x.ptr + row * args.row_stride + index);
  }
};

/// A group takes one part of a row, threads beside each other elements beside each other. Bound by memory.
template <class T>
struct Argmax {
  using Args = ops::ArgmaxGpuArgs;
  static constexpr uint32_t kThreads = 256;
  struct Shared {
    uint64_t best[kThreads / kSimdWidth];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const uint32_t parts = uint32_t(args.parts_per_row), part = t.group.x % parts;
    const int64_t row = t.group.x / parts, begin = part * args.part_elems, end = min(args.n, begin + args.part_elems);
    MLXN_GLOBAL const T* x = (MLXN_GLOBAL const T*)args.x.ptr + row * args.row_stride;
    // The first of equals is the lowest: a thread sees its elements in ascending order.
    float value = 0.0f;
    int64_t index = -1;
    for (int64_t i = begin + t.index; i < end; i += kThreads) {
      const float v = load(x + i);
      if (v > value || (index < 0 && !is_nan(v))) {
        value = v;
        index = i;
      }
    }
    uint64_t best = 0;
    if (index >= 0) best = uint64_t(ascending_bits(value + 0.0f)) << 32 | uint32_t(~index);  // -0 becomes +0
    best = group_max<kThreads>(t, best, shared.best);
    if (t.index != 0) return;
    if (parts == 1) {
      ArgmaxResult<T>::store(args, row, best);
    } else {
      args.parts.ptr[t.group.x] = best;
    }
  }
};

/// A SIMD-group takes the parts of a row.
template <class T>
struct ArgmaxMerge {
  using Args = ops::ArgmaxGpuArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = kSimdWidth;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t row = t.group.x;
    uint64_t best = 0;
    for (int64_t i = t.index; i < args.parts_per_row; i += kThreads) best = max(best, args.parts.ptr[row * args.parts_per_row + i]);
    best = simd_max(t, best);
    if (t.index == 0) ArgmaxResult<T>::store(args, row, best);
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)                  \
  KERNEL(argmax_f32, Argmax<float>)           \
  KERNEL(argmax_f16, Argmax<f16>)             \
  KERNEL(argmax_bf16, Argmax<bf16>)           \
  KERNEL(argmax_merge_f32, ArgmaxMerge<float>) \
  KERNEL(argmax_merge_f16, ArgmaxMerge<f16>)   \
  KERNEL(argmax_merge_bf16, ArgmaxMerge<bf16>)
