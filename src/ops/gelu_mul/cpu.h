#pragma once

#include "ops/activation_math.h"
#include "ops/elementwise.h"

namespace mlxn::ops {

struct GeluMul {
  static constexpr bool kUnary = false;
  static constexpr bool kMixed = false;
  template <class S>
  static MLXN_SIMD auto apply(typename Elements<S, float>::F g, typename Elements<S, float>::F u, float /*factor*/) {
    // (1 + tanh z) / 2 = 1 / (1 + e^-2z), which does not cancel where tanh z is near -1.
    const auto twice_z = (g + g * g * g * 0.044715f) * (2 * 0.7978845608028654f);
    return Activation<S>::times_sigmoid(g, twice_z) * u;
  }
};

[[nodiscard]] cpu::Kernel<ElementwiseArgs> gelu_mul_scalar(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> gelu_mul_avx2(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> gelu_mul_avx512(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> gelu_mul_neon(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
