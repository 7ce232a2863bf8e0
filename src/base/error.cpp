#include "base/error.h"

namespace mlxn {

Error make_error_of(ErrorCode code, fmt::string_view text, fmt::format_args args) noexcept {
  try {
    return Error(code, fmt::vformat(text, args));
  } catch (...) {
    return Error(code);
  }
}

}  // namespace mlxn
