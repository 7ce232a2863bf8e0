#pragma once

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

inline Reference scale(double x, double factor) { return {x * factor, std::fabs(x * factor)}; }

}  // namespace mlxn::test::reference
