#pragma once

#include <string>

namespace mlxn {

/// The elements of a range, numbers or texts, with ", " between them. fmt::join would do it, but compiles all that formats
/// numbers into every file that uses it.
template <class Range>
[[nodiscard]] std::string joined(const Range& range) {
  std::string text;
  bool first = true;
  for (const auto& element : range) {
    if (!first) text += ", ";
    first = false;
    if constexpr (requires { std::to_string(element); }) {
      text += std::to_string(element);
    } else {
      text += element;
    }
  }
  return text;
}

}  // namespace mlxn
