#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

namespace mlxn::fuzz {

/// Takes an input apart; gives zeros and empty texts at its end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::uint8_t> input) : rest_(input) {}
  [[nodiscard]] std::size_t left() const { return rest_.size(); }
  unsigned next() {
    if (rest_.empty()) return 0;
    const unsigned out = rest_[0];
    rest_ = rest_.subspan(1);
    return out;
  }
  std::string take(std::size_t n) {
    n = std::min(n, rest_.size());
    std::string out(reinterpret_cast<const char*>(rest_.data()), n);
    rest_ = rest_.subspan(n);
    return out;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

}  // namespace mlxn::fuzz
