#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "mlxn/dtype.h"

namespace mlxn {

/// Of values that the caller may have cast from numbers. `op` goes into the error's text.

/// bad_dtype unless it is one of the enumeration.
[[nodiscard]] Result<void> check_dtype(std::string_view op, DType type);

/// invalid_argument unless it is `first` to `last`.
[[nodiscard]] Result<void> check_number(std::string_view op, std::string_view field, std::uint64_t value, std::uint64_t first,
                                        std::uint64_t last);
/// The same of an enumeration without gaps.
template <class Enum>
[[nodiscard]] Result<void> check_enum(std::string_view op, std::string_view field, Enum value, Enum last, Enum first = Enum{}) {
  return check_number(op, field, static_cast<std::uint64_t>(value), static_cast<std::uint64_t>(first), static_cast<std::uint64_t>(last));
}

}  // namespace mlxn
