#pragma once

#include <algorithm>
#include <ctime>

namespace mlxn::test {

/// What bounds in seconds are multiplied by: sanitizers slow everything down, by how much depends on the machine.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr double kSlowdown = 10;
#else
inline constexpr double kSlowdown = 1;
#endif

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
