#pragma once

#include "mlxn/gguf.h"

namespace mlxn {

/// The error with the file's name before it, unless it begins with that already.
[[nodiscard]] inline Error named_error(const GgufFile& file, const Error& error) noexcept {
  const std::string_view text = error.message(), label = file.label();
  return text.starts_with(label) && text.substr(label.size()).starts_with(": ") ? error : error.with_context(label);
}

}  // namespace mlxn
