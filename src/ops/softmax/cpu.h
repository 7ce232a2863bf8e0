#pragma once

#include "backends/cpu/launch.h"
#include "ops/elements.h"
#include "ops/softmax/args.h"

namespace mlxn::ops {

/// Three passes over a row, of which the last two form the same exponentials: nothing but the result is rounded to T.
template <class S, class T>
MLXN_SIMD void softmax_row(const T* x, T* y, std::int64_t cols) {
  using E = Elements<S, T>;
  using F = typename S::F;
  constexpr int kLanes = S::kLanes;
  const float infinity = __builtin_inff();
  const std::int64_t whole = cols / kLanes * kLanes;
  const std::int64_t rest = cols - whole;
  F tail = S::set(-infinity);  // the lanes past the end count for nothing
  if (rest > 0) tail = S::select(S::iota() < static_cast<std::int32_t>(rest), E::load_part(x + whole, rest), tail);

  F top = tail;
  for (std::int64_t i = 0; i < whole; i += kLanes) top = S::max(top, E::load(x + i));
  float max = S::max_lane(top);
  if (max == -infinity) max = 0;  // keeps exp(-inf) = 0, so that the sum is 0, or NaN if the row has one

  F sums = exp<S>(tail - max);
  for (std::int64_t i = 0; i < whole; i += kLanes) sums += exp<S>(E::load(x + i) - max);
  const float sum = S::sum_lanes(sums);
  const float inverse = sum == 0 ? 0.0f : 1.0f / sum;

  for (std::int64_t i = 0; i < whole; i += kLanes) E::store(y + i, exp<S>(E::load(x + i) - max) * inverse);
  if (rest > 0) E::store_part(y + whole, exp<S>(tail - max) * inverse, rest);
}

template <class S, class T>
void softmax_rows(const SoftmaxArgs& args, const CpuContext& context) {
  constexpr std::int64_t kGrainElems = 4096;
  const std::int64_t grain = args.cols < kGrainElems ? kGrainElems / args.cols : 1;
  context.for_chunks(static_cast<std::uint64_t>(args.rows), static_cast<std::uint64_t>(grain),
                     [&](std::uint64_t begin, std::uint64_t end) {
                       for (std::uint64_t r = begin; r < end; ++r) {
                         const auto row = static_cast<std::int64_t>(r);
                         softmax_row<S>(static_cast<const T*>(args.x.ptr) + row * args.x_row,
                                        static_cast<T*>(args.y.ptr) + row * args.y_row, args.cols);
                       }
                     });
}

template <class S>
cpu::Kernel<SoftmaxArgs> softmax_kernel(std::string_view name, DType x) noexcept {
  if (x == DType::f32) return cpu::kernel<&softmax_rows<S, float>>(name);
  if (x == DType::f16) return cpu::kernel<&softmax_rows<S, f16>>(name);
  return cpu::kernel<&softmax_rows<S, bf16>>(name);
}

using SoftmaxSelect = cpu::Kernel<SoftmaxArgs> (*)(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<SoftmaxArgs> softmax_scalar(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<SoftmaxArgs> softmax_avx2(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<SoftmaxArgs> softmax_avx512(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<SoftmaxArgs> softmax_neon(std::string_view name, DType x) noexcept;

}  // namespace mlxn::ops
