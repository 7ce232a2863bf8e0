#pragma once

#include "ops/rope/angle.h"
#include "ops/rope/args.h"

namespace mlxn {
namespace gpu {

/// A group takes one token and a few of its heads; threads beside each other take pairs beside each other, and a thread forms the
/// sine and cosine of its pair once for all of the group's heads. Bound by memory, at a few tokens by the launch.
template <class T>
struct Rope {
  using Args = ops::RopeArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 64;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t token = t.group.x, first_head = t.group.y * args.heads_per_group;
    const int64_t end_head = min(args.heads, first_head + args.heads_per_group);
    MLXN_GLOBAL const T* x = (MLXN_GLOBAL const T*)args.x.ptr + token * args.x_row;
    MLXN_GLOBAL T* y = (MLXN_GLOBAL T*)args.y.ptr + token * args.y_row;
    const int32_t position = args.positions.ptr[token];
    for (int64_t p = t.index; p < args.pairs; p += kThreads) {
      const SineCosine angle = sine_cosine(position, args.inv_freq.ptr[p]);
      const float sine = angle.sine * (args.sign * args.magnitude), cosine = angle.cosine * args.magnitude;
      const int64_t first = args.adjacent != 0 ? 2 * p : p, second = first + args.split_offset;
      for (int64_t h = first_head; h < end_head; ++h) {
        const float a = load(x + h * args.x_head + first), b = load(x + h * args.x_head + second);
        store(y + h * args.y_head + first, a * cosine - b * sine);
        store(y + h * args.y_head + second, b * cosine + a * sine);
      }
    }
    if (args.x.ptr == args.y.ptr) return;  // exactly x: the rest is in place
    const int64_t turned = args.adjacent != 0 ? 2 * args.pairs : args.pairs;
    const int64_t resumed = args.adjacent != 0 ? turned : args.split_offset;
    const int64_t last = args.adjacent != 0 ? turned : args.split_offset + args.pairs;
    for (int64_t h = first_head; h < end_head; ++h) {
      copy(t, x + h * args.x_head, y + h * args.y_head, turned, resumed);
      copy(t, x + h * args.x_head, y + h * args.y_head, last, args.head_dim);
    }
  }

 private:
  /// Bits, so that a NaN stays the one that it is.
  static MLXN_FN void copy(const Thread& t, MLXN_GLOBAL const T* x, MLXN_GLOBAL T* y, int64_t begin, int64_t end) {
    for (int64_t i = begin + t.index; i < end; i += kThreads) {
      if constexpr (sizeof(T) == 2) {
        ((MLXN_GLOBAL uint16_t*)y)[i] = ((MLXN_GLOBAL const uint16_t*)x)[i];
      } else {
        ((MLXN_GLOBAL uint32_t*)y)[i] = ((MLXN_GLOBAL const uint32_t*)x)[i];
      }
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)    \
  KERNEL(rope_f32, Rope<float>) \
  KERNEL(rope_f16, Rope<f16>)   \
  KERNEL(rope_bf16, Rope<bf16>)
