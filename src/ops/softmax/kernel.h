#pragma once

#include "ops/softmax/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// A row is kTeam threads': a group's, or a SIMD-group's where a group has several rows. Threads beside each other take elements
/// beside each other. Up to kPerThread values of a thread stay in registers, so that memory is read once; with kPerThread == 0
/// rows of any length are read three times, the last two of them from a cache. Bound by memory.
template <class T, uint32_t kTeam, uint32_t kRows, uint32_t kPerThread>
struct Softmax {
  using Args = ops::SoftmaxArgs;
  static constexpr uint32_t kThreads = kTeam * kRows;
  static_assert(kRows == 1 || kTeam == kSimdWidth, "rows of one group share no barrier");
  struct Shared {
    float scratch[kTeam / kSimdWidth];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const int64_t row = int64_t(t.group.x) * kRows + t.index / kTeam;
    if (row >= args.rows) return;
    MLXN_GLOBAL const T* x = (MLXN_GLOBAL const T*)args.x.ptr + row * args.x_row;
    MLXN_GLOBAL T* y = (MLXN_GLOBAL T*)args.y.ptr + row * args.y_row;
    const uint32_t index = t.index % kTeam;
    if constexpr (kPerThread > 0) {
      const uint32_t cols = uint32_t(args.cols);
      float v[kPerThread];
      float top = -infinity();
      MLXN_UNROLL
      for (uint32_t i = 0; i < kPerThread; ++i) {
        const uint32_t at = i * kTeam + index;
        v[i] = at < cols ? load(x + at) : -infinity();
        top = v[i] > top ? v[i] : top;
      }
      const float origin = origin_of(group_max<kTeam>(t, top, shared.scratch));
      float sum = 0.0f;
      MLXN_UNROLL
      for (uint32_t i = 0; i < kPerThread; ++i) {
        v[i] = exp(v[i] - origin);
        sum += v[i];
      }
      const float factor = factor_of(group_sum<kTeam>(t, sum, shared.scratch));
      MLXN_UNROLL
      for (uint32_t i = 0; i < kPerThread; ++i) {
        const uint32_t at = i * kTeam + index;
        if (at < cols) store(y + at, v[i] * factor);
      }
    } else {
      float top = -infinity();
      for (int64_t i = index; i < args.cols; i += kTeam) {
        const float v = load(x + i);
        top = v > top ? v : top;
      }
      const float origin = origin_of(group_max<kTeam>(t, top, shared.scratch));
      float sum = 0.0f;
      for (int64_t i = index; i < args.cols; i += kTeam) sum += exp(load(x + i) - origin);
      const float factor = factor_of(group_sum<kTeam>(t, sum, shared.scratch));
      for (int64_t i = index; i < args.cols; i += kTeam) store(y + i, exp(load(x + i) - origin) * factor);
    }
  }

 private:
  /// What the exponents count from. 0 in a row of -infinity keeps exp(-infinity) = 0, so that the sum is 0, or NaN if the row has
  /// a NaN.
  static MLXN_FN float origin_of(float top) { return top == -infinity() ? 0.0f : top; }
  static MLXN_FN float factor_of(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }
};

template <class T>
struct SoftmaxShort : Softmax<T, kSimdWidth, ops::kSoftmaxShortRows, ops::kSoftmaxShortCols / kSimdWidth> {};
template <class T>
struct SoftmaxKept : Softmax<T, 256, 1, ops::kSoftmaxKeptCols / 256> {};
template <class T>
struct SoftmaxLong : Softmax<T, 1024, 1, 0> {};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)                 \
  KERNEL(softmax_short_f32, SoftmaxShort<float>) \
  KERNEL(softmax_short_f16, SoftmaxShort<f16>)   \
  KERNEL(softmax_short_bf16, SoftmaxShort<bf16>) \
  KERNEL(softmax_kept_f32, SoftmaxKept<float>)   \
  KERNEL(softmax_kept_f16, SoftmaxKept<f16>)     \
  KERNEL(softmax_kept_bf16, SoftmaxKept<bf16>)   \
  KERNEL(softmax_long_f32, SoftmaxLong<float>)   \
  KERNEL(softmax_long_f16, SoftmaxLong<f16>)     \
  KERNEL(softmax_long_bf16, SoftmaxLong<bf16>)
