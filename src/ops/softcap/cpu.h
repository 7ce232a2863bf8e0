#pragma once

#include "ops/activation_math.h"
#include "ops/elementwise.h"

namespace mlxn::ops {

struct Softcap {
  static constexpr bool kUnary = true;
  static constexpr bool kMixed = false;
  template <class S>
  static MLXN_SIMD auto apply(typename Elements<S, float>::F x, typename Elements<S, float>::F /*b*/, float cap) {
    return cap * Activation<S>::tanh(x / cap);
  }
};

[[nodiscard]] cpu::Kernel<ElementwiseArgs> softcap_scalar(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> softcap_avx2(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> softcap_avx512(std::string_view name, DType a, DType b) noexcept;
[[nodiscard]] cpu::Kernel<ElementwiseArgs> softcap_neon(std::string_view name, DType a, DType b) noexcept;

}  // namespace mlxn::ops
