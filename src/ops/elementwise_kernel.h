#pragma once

#include "ops/elementwise_args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// y = f(a, b) element by element. F is a type with
///   static constexpr bool kUnary;                            // b is not read
///   static MLXN_FN float apply(float a, float b, float factor);
/// A group takes kElementwisePerGroup elements in a row, threads beside each other elements beside each other. Bound by memory.
template <class F, class T, class B>
struct Elementwise {
  using Args = ops::ElementwiseArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 256;
  static constexpr uint32_t kPerThread = ops::kElementwisePerGroup / kThreads;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t total = args.rows * args.dim;
    const int64_t first = int64_t(t.group.x) * ops::kElementwisePerGroup + t.index;
    for (uint32_t i = 0; i < kPerThread; ++i) {
      const int64_t at = first + int64_t(i) * kThreads;
      if (at >= total) return;
      int64_t row = 0, column = at;
      if (args.rows > 1) {
        // A division of 32 bits where that is enough costs a fraction of one of 64.
        row = total <= 0x7fffffff ? int64_t(uint32_t(at) / uint32_t(args.dim)) : at / args.dim;
        column = at - row * args.dim;
      }
      const float a = load((MLXN_GLOBAL const T*)args.a.ptr + args.a_strides.at(row) + column);
      float b = 0.0f;
      if (!F::kUnary) b = load((MLXN_GLOBAL const B*)args.b.ptr + args.b_strides.at(row) + column);
      store((MLXN_GLOBAL T*)args.y.ptr + args.y_strides.at(row) + column, F::apply(a, b, args.factor));
    }
  }
};

/// x / (1 + e^-z) for an x of z's sign. Working with e^-|z| keeps the quotient exact down to the normal numbers' end, beyond
/// which it is 0.
MLXN_FN float times_sigmoid(float x, float z) {
  const float e = abs(z) > 87.3f ? 0.0f : exp(-abs(z));
  return (z < 0.0f ? x * e : x) / (1.0f + e);
}

}  // namespace gpu
}  // namespace mlxn

/// The instances of an operation, for its header's MLXN_KERNELS. _MIXED: b may be f32 beside 16-bit a.
#define MLXN_ELEMENTWISE(KERNEL, op, F)         \
  KERNEL(op##_f32, Elementwise<F, float, float>) \
  KERNEL(op##_f16, Elementwise<F, f16, f16>)     \
  KERNEL(op##_bf16, Elementwise<F, bf16, bf16>)
#define MLXN_ELEMENTWISE_MIXED(KERNEL, op, F)     \
  MLXN_ELEMENTWISE(KERNEL, op, F)                  \
  KERNEL(op##_f16_f32, Elementwise<F, f16, float>) \
  KERNEL(op##_bf16_f32, Elementwise<F, bf16, float>)
