#pragma once

#include <fmt/format.h>

#include "mlxn/result.h"

namespace mlxn {

/// An Error with a formatted text. Formatting that runs out of memory leaves the code alone.
template <class... Args>
[[nodiscard]] Error make_error(ErrorCode code, fmt::format_string<Args...> text, Args&&... args) noexcept {
  try {
    return Error(code, fmt::format(text, std::forward<Args>(args)...));
  } catch (...) {
    return Error(code);
  }
}

}  // namespace mlxn
