#pragma once

#include "ops/elementwise.h"

namespace mlxn::ops {

struct Scale {
  static constexpr bool kUnary = true;
  static constexpr bool kMixed = false;
  template <class S>
  static MLXN_SIMD auto apply(typename Elements<S, float>::F x, typename Elements<S, float>::F /*b*/, float factor) {
    return x * factor;
  }
};

[[nodiscard]] cpu::Kernel<ElementwiseArgs> scale_scalar(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> scale_avx2(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> scale_avx512(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> scale_neon(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
