#include "base/check_value.h"

namespace mlxn {

Result<void> check_dtype(std::string_view op, DType type) {
  if (is_dtype(type)) return {};
  return make_error(ErrorCode::bad_dtype, "{}: dtype {} is none, wanted 0 to {}", op, static_cast<int>(type), kDTypeCount - 1);
}

Result<void> check_number(std::string_view op, std::string_view field, std::uint64_t value, std::uint64_t first, std::uint64_t last) {
  if (value >= first && value <= last) return {};
  return make_error(ErrorCode::invalid_argument, "{}: {} is {}, wanted {} to {}", op, field, value, first, last);
}

}  // namespace mlxn
