#pragma once

#include <vector>

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

/// One row. An empty w means all ones.
inline std::vector<Reference> rms_norm(const std::vector<float>& x, const std::vector<float>& w, double eps) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  const double rms = std::sqrt(sum / static_cast<double>(x.size()) + eps);
  std::vector<Reference> y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double value = x[i] / rms * (w.empty() ? 1.0 : w[i]);
    y.push_back({value, std::fabs(value)});
  }
  return y;
}

}  // namespace mlxn::test::reference
