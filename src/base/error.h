#pragma once

#include <fmt/format.h>

#include "mlxn/result.h"

namespace mlxn {

/// An Error with a formatted text. Formatting that runs out of memory leaves the code alone.
[[nodiscard]] Error make_error_of(ErrorCode code, fmt::string_view text, fmt::format_args args) noexcept;

template <class... Args>
[[nodiscard]] Error make_error(ErrorCode code, fmt::format_string<Args...> text, Args&&... args) noexcept {
  return make_error_of(code, text, fmt::make_format_args(args...));
}

}  // namespace mlxn
