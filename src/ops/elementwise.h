#pragma once

#include <cstdint>

#include "backends/cpu/launch.h"
#include "ops/elementwise_args.h"
#include "ops/elements.h"

namespace mlxn::ops {

/// y = f(a, b) element by element. One launch struct and one body for add, mul, scale, softcap, silu_mul and gelu_mul: an
/// operation is a type with
///   static constexpr bool kUnary;                               // b is not read
///   static constexpr bool kMixed;                               // b may be f32 beside 16-bit a
///   template <class S> static F apply(F a, F b, float factor);  // F: Elements<S, T>::F
/// elementwise_kernel.h is the same for GPUs.

/// Bound by memory. The elements, not the rows, are shared out, so that one long row occupies the team; what becomes of an
/// element does not depend on where a share or a vector begins.
template <class S, class Op, class T, class B>
void elementwise(const ElementwiseArgs& args, const CpuContext& context) {
  constexpr std::uint64_t kUnit = 512;  // elements a thread takes at least: 1 to 6 KiB of traffic
  const auto share = context.share(static_cast<std::uint64_t>(args.rows * args.dim), kUnit);
  auto at = static_cast<std::int64_t>(share.begin);
  const auto end = static_cast<std::int64_t>(share.end);
  if (at >= end) return;
  std::int64_t row = at / args.dim, column = at % args.dim;
  while (at < end) {
    const std::int64_t rest = args.dim - column;
    const std::int64_t count = rest < end - at ? rest : end - at;
    const T* a = static_cast<const T*>(args.a.ptr) + args.a_strides.at(row) + column;
    const B* b = nullptr;
    if constexpr (!Op::kUnary) b = static_cast<const B*>(args.b.ptr) + args.b_strides.at(row) + column;
    T* y = static_cast<T*>(args.y.ptr) + args.y_strides.at(row) + column;

    using F = typename Elements<S, T>::F;
    std::int64_t i = 0;
    for (; i + S::kLanes <= count; i += S::kLanes) {
      F right{};
      if constexpr (!Op::kUnary) right = Elements<S, B>::load(b + i);
      Elements<S, T>::store(y + i, Op::template apply<S>(Elements<S, T>::load(a + i), right, args.factor));
    }
    if (i < count) {
      F right{};
      if constexpr (!Op::kUnary) right = Elements<S, B>::load_part(b + i, count - i);
      const F left = Elements<S, T>::load_part(a + i, count - i);
      Elements<S, T>::store_part(y + i, Op::template apply<S>(left, right, args.factor), count - i);
    }
    at += count;
    column = 0;
    ++row;
  }
}

/// The kernel for operands of these types; a null one if there is none.
template <class S, class Op>
cpu::Kernel<ElementwiseArgs> elementwise_kernel(std::string_view name, DType a, DType b) noexcept {
  if (a == DType::f32 && b == DType::f32) return cpu::kernel<&elementwise<S, Op, float, float>>(name);
  if (a == DType::f16 && b == DType::f16) return cpu::kernel<&elementwise<S, Op, f16, f16>>(name);
  if (a == DType::bf16 && b == DType::bf16) return cpu::kernel<&elementwise<S, Op, bf16, bf16>>(name);
  if constexpr (Op::kMixed) {
    if (a == DType::f16 && b == DType::f32) return cpu::kernel<&elementwise<S, Op, f16, float>>(name);
    if (a == DType::bf16 && b == DType::f32) return cpu::kernel<&elementwise<S, Op, bf16, float>>(name);
  }
  return {};
}

using ElementwiseSelect = cpu::Kernel<ElementwiseArgs> (*)(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
