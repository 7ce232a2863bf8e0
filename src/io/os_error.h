#pragma once

#include <cerrno>
#include <string_view>
#include <system_error>

#include "base/error.h"

namespace mlxn::io {

/// What the operating system said of an action on a file; `number` is its errno.
[[nodiscard]] inline Error os_error(std::string_view path, std::string_view action, int number) {
  return make_error(number == ENOMEM ? ErrorCode::out_of_memory : ErrorCode::io, "{}: {}: {}", path, action,
                    std::generic_category().message(number))
      .with_native_code(number);
}

}  // namespace mlxn::io
