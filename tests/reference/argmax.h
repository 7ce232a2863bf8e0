#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace mlxn::test::reference {

struct Argmax {
  std::uint32_t index = 0;
  float value = -std::numeric_limits<float>::infinity();
};

inline Argmax argmax(const std::vector<float>& x) {
  Argmax best;
  bool found = false;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i]) || (found && x[i] <= best.value)) continue;
    best = {static_cast<std::uint32_t>(i), x[i]};
    found = true;
  }
  return best;
}

}  // namespace mlxn::test::reference
