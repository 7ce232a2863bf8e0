#pragma once

#include <fmt/format.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "mlxn/result.h"

namespace mlxn::gguf {

/// An error that carries the id of the rule that was broken.
template <class... Args>
[[nodiscard]] Error rule_error(ErrorCode code, std::string_view rule, fmt::format_string<Args...> text,
                               Args&&... args) noexcept {
  try {
    return Error(code, "gguf: " + fmt::format(text, std::forward<Args>(args)...), rule);
  } catch (...) {
    return Error(code, {}, rule);
  }
}

template <class... Args>
[[nodiscard]] Error corrupt(std::string_view rule, fmt::format_string<Args...> text,
                            Args&&... args) noexcept {
  return rule_error(ErrorCode::corrupt_file, rule, text, std::forward<Args>(args)...);
}

/// Reads forward through bytes and cannot pass their end. Every value is copied out exactly once, so that
/// bytes which change meanwhile cannot be checked as one thing and used as another.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] std::uint64_t remaining() const noexcept { return bytes_.size() - position_; }

  template <class T>
  requires std::is_arithmetic_v<T>
  [[nodiscard]] Result<T> read(std::string_view what) noexcept {
    static_assert(std::endian::native == std::endian::little, "the format's numbers are copied as they lie");
    if (remaining() < sizeof(T)) return short_read(what, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  [[nodiscard]] Result<std::span<const std::byte>> take(std::uint64_t length,
                                                        std::string_view what) noexcept {
    if (remaining() < length) return short_read(what, length);
    const auto out = bytes_.subspan(position_, static_cast<std::size_t>(length));
    position_ += length;
    return out;
  }

 private:
  [[nodiscard]] Error short_read(std::string_view what, std::uint64_t wanted) const noexcept {
    return corrupt("V03", "the file is cut off: {} at byte {} wants {} bytes, {} remain", what, position_,
                   wanted, remaining());
  }
  std::span<const std::byte> bytes_;
  std::uint64_t position_ = 0;
};

}  // namespace mlxn::gguf
