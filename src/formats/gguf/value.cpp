#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "formats/gguf/cursor.h"
#include "formats/gguf/state.h"

namespace mlxn {
namespace {

template <class T>
T load(const std::byte* p) noexcept {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

/// Any integer as sign and magnitude, so that both 64-bit types fit.
struct Integer {
  bool negative = false;
  std::uint64_t bits = 0;  // two's complement where negative
};

std::optional<Integer> load_integer(GgufType type, const std::byte* p) noexcept {
  const auto from_signed = [](std::int64_t v) { return Integer{v < 0, static_cast<std::uint64_t>(v)}; };
  switch (type) {
    case GgufType::u8:
      return Integer{false, load<std::uint8_t>(p)};
    case GgufType::u16:
      return Integer{false, load<std::uint16_t>(p)};
    case GgufType::u32:
      return Integer{false, load<std::uint32_t>(p)};
    case GgufType::u64:
      return Integer{false, load<std::uint64_t>(p)};
    case GgufType::i8:
      return from_signed(load<std::int8_t>(p));
    case GgufType::i16:
      return from_signed(load<std::int16_t>(p));
    case GgufType::i32:
      return from_signed(load<std::int32_t>(p));
    case GgufType::i64:
      return from_signed(load<std::int64_t>(p));
    case GgufType::f32:
    case GgufType::f64:
    case GgufType::boolean:
    case GgufType::string:
    case GgufType::array:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(GgufType type) noexcept {
  switch (type) {
    case GgufType::u8:
      return "u8";
    case GgufType::i8:
      return "i8";
    case GgufType::u16:
      return "u16";
    case GgufType::i16:
      return "i16";
    case GgufType::u32:
      return "u32";
    case GgufType::i32:
      return "i32";
    case GgufType::f32:
      return "f32";
    case GgufType::boolean:
      return "bool";
    case GgufType::string:
      return "string";
    case GgufType::array:
      return "array";
    case GgufType::u64:
      return "u64";
    case GgufType::i64:
      return "i64";
    case GgufType::f64:
      return "f64";
  }
  return "unknown";
}

Error GgufValue::wrong_type(std::string_view wanted) const noexcept {
  return gguf::corrupt("V15", "key '{}' has type {}{}, wanted {}", key_, is_array() ? "array of " : "",
                       to_string(element_type_), wanted);
}

Result<const std::byte*> GgufValue::element(std::uint64_t index, std::string_view wanted) const noexcept {
  const std::uint64_t size = gguf::scalar_bytes(element_type_);
  if (size == 0) return wrong_type(wanted);
  if (!is_array()) index = 0;
  if (index >= count_) {
    return make_error(ErrorCode::out_of_range, "gguf: key '{}' has {} elements, wanted number {}", key_,
                      count_, index);
  }
  return bytes_.data() + index * size;
}

Result<std::uint64_t> GgufValue::uint_at(std::uint64_t index) const noexcept {
  constexpr std::string_view wanted = "an integer that is not negative";
  MLXN_TRY(const std::byte* p, element(index, wanted));
  const std::optional<Integer> value = load_integer(element_type_, p);
  if (!value) return wrong_type(wanted);
  if (value->negative) {
    return gguf::corrupt("V15", "key '{}' is {}, wanted {}", key_, static_cast<std::int64_t>(value->bits),
                         wanted);
  }
  return value->bits;
}

Result<std::int64_t> GgufValue::int_at(std::uint64_t index) const noexcept {
  constexpr std::string_view wanted = "a signed 64-bit integer";
  MLXN_TRY(const std::byte* p, element(index, wanted));
  const std::optional<Integer> value = load_integer(element_type_, p);
  if (!value) return wrong_type(wanted);
  if (!value->negative &&
      value->bits > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return gguf::corrupt("V15", "key '{}' is {}, wanted {}", key_, value->bits, wanted);
  }
  return static_cast<std::int64_t>(value->bits);
}

Result<double> GgufValue::float_at(std::uint64_t index) const noexcept {
  constexpr std::string_view wanted = "a number";
  MLXN_TRY(const std::byte* p, element(index, wanted));
  if (element_type_ == GgufType::f32) return static_cast<double>(load<float>(p));
  if (element_type_ == GgufType::f64) return load<double>(p);
  const std::optional<Integer> value = load_integer(element_type_, p);
  if (!value) return wrong_type(wanted);
  return value->negative ? static_cast<double>(static_cast<std::int64_t>(value->bits))
                         : static_cast<double>(value->bits);
}

Result<bool> GgufValue::bool_at(std::uint64_t index) const noexcept {
  MLXN_TRY(const std::byte* p, element(index, "a bool"));
  if (element_type_ != GgufType::boolean) return wrong_type("a bool");
  return *p != std::byte{0};
}

Result<std::uint64_t> GgufValue::as_uint() const noexcept {
  if (is_array()) return wrong_type("an integer that is not negative");
  return uint_at(0);
}

Result<std::int64_t> GgufValue::as_int() const noexcept {
  if (is_array()) return wrong_type("a signed 64-bit integer");
  return int_at(0);
}

Result<double> GgufValue::as_float() const noexcept {
  if (is_array()) return wrong_type("a number");
  return float_at(0);
}

Result<bool> GgufValue::as_bool() const noexcept {
  if (is_array()) return wrong_type("a bool");
  return bool_at(0);
}

Result<std::string_view> GgufValue::as_string() const noexcept {
  if (type_ != GgufType::string) return wrong_type("a string");
  return std::string_view(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
}

Result<GgufStrings> GgufValue::as_strings() const noexcept {
  if (!is_array() || element_type_ != GgufType::string) return wrong_type("an array of strings");
  return GgufStrings(reinterpret_cast<const char*>(bytes_.data()), ends_, is_utf8_);
}

Result<std::span<const std::byte>> GgufValue::array_bytes(GgufType wanted) const noexcept {
  if (is_array() && element_type_ == wanted) return std::span<const std::byte>(bytes_);
  return gguf::corrupt("V15", "key '{}' has type {}{}, wanted an array of {}", key_,
                       is_array() ? "array of " : "", to_string(element_type_), to_string(wanted));
}

}  // namespace mlxn
