#pragma once

#include "ops/elementwise.h"

namespace mlxn::ops {

struct Mul {
  static constexpr bool kUnary = false;
  static constexpr bool kMixed = true;
  template <class S>
  static MLXN_SIMD auto apply(typename Elements<S, float>::F a, typename Elements<S, float>::F b, float /*factor*/) {
    return a * b;
  }
};

[[nodiscard]] cpu::Kernel<ElementwiseArgs> mul_scalar(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> mul_avx2(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> mul_avx512(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> mul_neon(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
