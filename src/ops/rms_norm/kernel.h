#pragma once

#include "ops/rms_norm/args.h"
#include "ops/rms_norm/row.h"

namespace mlxn {
namespace gpu {

/// A group takes one row. Bound by memory; for one row by the latency of one load and two barriers.
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
    NormRow<T, W, kGroup>::template run<false>(t, shared.sums, x, x, y, (MLXN_GLOBAL const W*)args.w.ptr, y, args.dim, args.eps,
                                               args.aligned != 0);
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
