#pragma once

#include <algorithm>

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

/// The magnitude grows with the exponent, whose rounding error is proportional to it.
inline Reference gelu_mul(double g, double u) {
  const double z = 0.7978845608028654 * (g + 0.044715 * g * g * g);
  const double gate = std::isfinite(g) && 2 * z < -87.3 ? -0.0 : g / (1 + std::exp(-2 * z));  // = g * (1 + tanh z) / 2
  const double grown = std::isfinite(z) ? std::min(1 + std::fabs(2 * z), 100.0) : 1;
  return {gate * u, std::fabs(gate * u) * grown};
}

}  // namespace mlxn::test::reference
