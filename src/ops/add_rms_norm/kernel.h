#pragma once

#include "ops/add_rms_norm/args.h"
#include "ops/rms_norm/row.h"

namespace mlxn {
namespace gpu {

/// A group takes one row. Bound by memory; for one row by the latency of one load and two barriers.
template <class T, class W, uint32_t kGroup>
struct AddRmsNorm {
  using Args = ops::AddRmsNormArgs;
  static constexpr uint32_t kThreads = kGroup;
  struct Shared {
    float sums[kGroup / kSimdWidth];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const int64_t row = t.group.x;
    NormRow<T, W, kGroup>::template run<true>(
        t, shared.sums, (MLXN_GLOBAL const T*)args.x.ptr + args.x_strides.at(row),
        (MLXN_GLOBAL const T*)args.residual.ptr + args.residual_strides.at(row),
        (MLXN_GLOBAL T*)args.sum.ptr + args.sum_strides.at(row), (MLXN_GLOBAL const W*)args.w.ptr,
        (MLXN_GLOBAL T*)args.y.ptr + args.y_strides.at(row), args.dim, args.eps, args.aligned != 0);
  }
};

}  // namespace gpu
}  // namespace mlxn

// Groups as rms_norm has them for rows of the same length, so that both give the same bits.
#define MLXN_KERNELS(KERNEL)                                       \
  KERNEL(add_rms_norm_f32, AddRmsNorm<float, float, 512>)          \
  KERNEL(add_rms_norm_f16, AddRmsNorm<f16, f16, 512>)              \
  KERNEL(add_rms_norm_bf16, AddRmsNorm<bf16, bf16, 512>)           \
  KERNEL(add_rms_norm_f16_f32, AddRmsNorm<f16, float, 512>)        \
  KERNEL(add_rms_norm_bf16_f32, AddRmsNorm<bf16, float, 512>)      \
  KERNEL(add_rms_norm_short_f32, AddRmsNorm<float, float, 32>)     \
  KERNEL(add_rms_norm_short_f16, AddRmsNorm<f16, f16, 32>)         \
  KERNEL(add_rms_norm_short_bf16, AddRmsNorm<bf16, bf16, 32>)      \
  KERNEL(add_rms_norm_short_f16_f32, AddRmsNorm<f16, float, 32>)   \
  KERNEL(add_rms_norm_short_bf16_f32, AddRmsNorm<bf16, float, 32>)
