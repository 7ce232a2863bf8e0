#pragma once

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

inline Reference softcap(double x, double cap) {
  const double y = cap * std::tanh(x / cap);
  return {y, std::fabs(y)};
}

}  // namespace mlxn::test::reference
