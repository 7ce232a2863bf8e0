#pragma once

#include "ops/activation_math.h"
#include "ops/elementwise.h"

namespace mlxn::ops {

struct SiluMul {
  static constexpr bool kUnary = false;
  static constexpr bool kMixed = false;
  template <class S>
  static MLXN_SIMD auto apply(typename Elements<S, float>::F g, typename Elements<S, float>::F u, float /*factor*/) {
    return Activation<S>::times_sigmoid(g, g) * u;
  }
};

[[nodiscard]] cpu::Kernel<ElementwiseArgs> silu_mul_scalar(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> silu_mul_avx2(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> silu_mul_avx512(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> silu_mul_neon(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
