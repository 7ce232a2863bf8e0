#pragma once

#include "tests/reference/rms_norm.h"

namespace mlxn::test::reference {

/// The sums of a row as one f32 operation gives them; what is stored is these, rounded to the type.
inline std::vector<float> residual_sum(const std::vector<float>& x, const std::vector<float>& residual) {
  std::vector<float> sum(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) sum[i] = x[i] + residual[i];
  return sum;
}
/// y of one row, from the sums as they are stored.
inline std::vector<Reference> add_rms_norm(const std::vector<float>& stored_sum, const std::vector<float>& w, double eps) {
  return rms_norm(stored_sum, w, eps);
}

}  // namespace mlxn::test::reference
