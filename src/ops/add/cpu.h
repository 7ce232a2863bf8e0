#pragma once

#include "ops/elementwise.h"

namespace mlxn::ops {

struct Add {
  static constexpr bool kUnary = false;
  static constexpr bool kMixed = true;
  template <class S>
  static MLXN_SIMD auto apply(typename Elements<S, float>::F a, typename Elements<S, float>::F b, float /*factor*/) {
    return a + b;
  }
};

[[nodiscard]] cpu::Kernel<ElementwiseArgs> add_scalar(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> add_avx2(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> add_avx512(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> add_neon(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
