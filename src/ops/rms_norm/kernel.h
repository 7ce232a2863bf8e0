#pragma once

#include "ops/rms_norm/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// A group takes one row: threads beside each other take elements beside each other, sum their squares, and meet. The second
/// pass finds the row in the cache. Bound by memory.
template <class T, class W, uint32_t kGroup>
struct RmsNorm {
  using Args = ops::RmsNormArgs;
  static constexpr uint32_t kThreads = kGroup;
  struct Shared {
    float sums[kGroup / kSimdWidth];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const int64_t row = t.group.x;
    MLXN_GLOBAL const T* x = (MLXN_GLOBAL const T*)args.x.ptr + args.x_strides.at(row);
    MLXN_GLOBAL T* y = (MLXN_GLOBAL T*)args.y.ptr + args.y_strides.at(row);
    MLXN_GLOBAL const W* w = (MLXN_GLOBAL const W*)args.w.ptr;
    float sum = 0.0f;
    for (int64_t i = t.index; i < args.dim; i += kGroup) {
      const float v = load(x + i);
      sum += v * v;
    }
    sum = group_sum<kGroup>(t, sum, shared.sums);
    const float factor = 1.0f / sqrt(sum / float(args.dim) + args.eps);
    for (int64_t i = t.index; i < args.dim; i += kGroup) {
      const float v = load(x + i) * factor;
      store(y + i, w ? v * load(w + i) : v);
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)                               \
  KERNEL(rms_norm_f32, RmsNorm<float, float, 512>)          \
  KERNEL(rms_norm_f16, RmsNorm<f16, f16, 512>)              \
  KERNEL(rms_norm_bf16, RmsNorm<bf16, bf16, 512>)           \
  KERNEL(rms_norm_f16_f32, RmsNorm<f16, float, 512>)        \
  KERNEL(rms_norm_bf16_f32, RmsNorm<bf16, float, 512>)      \
  KERNEL(rms_norm_short_f32, RmsNorm<float, float, 32>)     \
  KERNEL(rms_norm_short_f16, RmsNorm<f16, f16, 32>)         \
  KERNEL(rms_norm_short_bf16, RmsNorm<bf16, bf16, 32>)      \
  KERNEL(rms_norm_short_f16_f32, RmsNorm<f16, float, 32>)   \
  KERNEL(rms_norm_short_bf16_f32, RmsNorm<bf16, float, 32>)
