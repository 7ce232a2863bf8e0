#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace mlxn::test {

/// SplitMix64: the same numbers on every platform. The environment variable MLXN_TEST_SEED is added to every seed, so a
/// suite can be run on other data; put `trace()` in a SCOPED_TRACE to have the seed printed on failure.
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : seed_(seed + offset()), state_(seed_) {}

  [[nodiscard]] std::uint64_t bits() noexcept {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// 0 .. limit - 1
  [[nodiscard]] std::uint64_t below(std::uint64_t limit) noexcept { return bits() % limit; }
  /// Uniform in [low, high).
  [[nodiscard]] float uniform(float low, float high) noexcept {
    return low + (high - low) * (static_cast<float>(bits() >> 40) * 0x1p-24f);
  }
  [[nodiscard]] std::vector<float> uniform(std::size_t count, float low, float high) {
    std::vector<float> x(count);
    for (float& v : x) v = uniform(low, high);
    return x;
  }
  [[nodiscard]] std::string trace() const { return "random seed " + std::to_string(seed_); }

 private:
  static std::uint64_t offset() noexcept {
    const char* text = std::getenv("MLXN_TEST_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 0) : 0;
  }
  std::uint64_t seed_;
  std::uint64_t state_;
};

}  // namespace mlxn::test
