#pragma once

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

/// The softmax of one row; zeros if it is -inf throughout. An exponent x - max is rounded relative to its own size, so the
/// magnitude of an element is its value times (1 + its distance from the maximum).
inline std::vector<Reference> softmax_row(std::span<const float> x) {
  double max = -std::numeric_limits<double>::infinity();
  for (const float v : x) max = v > max ? double{v} : max;
  std::vector<Reference> y(x.size());
  bool poisoned = false;
  for (const float v : x) poisoned = poisoned || std::isnan(v) || v == std::numeric_limits<float>::infinity();
  if (poisoned) {
    for (Reference& r : y) r.value = std::numeric_limits<double>::quiet_NaN();
    return y;
  }
  if (std::isinf(max)) return y;
  double sum = 0;
  for (const float v : x) sum += std::exp(double{v} - max);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isinf(x[i])) continue;
    y[i].value = std::exp(double{x[i]} - max) / sum;
    y[i].magnitude = y[i].value * (1 + max - double{x[i]});
  }
  return y;
}

}  // namespace mlxn::test::reference
