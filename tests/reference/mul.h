#pragma once

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

inline Reference mul(double a, double b) { return {a * b, std::fabs(a * b)}; }

}  // namespace mlxn::test::reference
