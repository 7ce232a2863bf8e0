#pragma once

#include <algorithm>
#include <ctime>

namespace mlxn::test {

/// The processor's time for some work, the best of three: others may be at work too.
template <class Work>
double seconds(Work&& work) {
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    const std::clock_t start = std::clock();
    work();
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return best;
}

}  // namespace mlxn::test
