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
  /// The first `bytes` of a file of `size`.
  Cursor(std::span<const std::byte> bytes, std::uint64_t size) noexcept : bytes_(bytes), size_(size) {}
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] std::uint64_t remaining() const noexcept { return size_ - position_; }
  /// Bytes from the start that a read wanted which stands in the file but beyond those given; 0 if there was none.
  [[nodiscard]] std::uint64_t wanted() const noexcept { return wanted_; }

  template <class T>
  requires std::is_arithmetic_v<T>
  [[nodiscard]] Result<T> read(std::string_view what) noexcept {
    static_assert(std::endian::native == std::endian::little, "the format's numbers are copied as they lie");
    MLXN_CHECK(reach(what, sizeof(T)));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  [[nodiscard]] Result<std::span<const std::byte>> take(std::uint64_t length,
                                                        std::string_view what) noexcept {
    MLXN_CHECK(reach(what, length));
    const auto out = bytes_.subspan(position_, static_cast<std::size_t>(length));
    position_ += length;
    return out;
  }

 private:
  [[nodiscard]] Result<void> reach(std::string_view what, std::uint64_t length) noexcept {
    if (length <= bytes_.size() - position_) return {};
    if (length <= remaining()) wanted_ = position_ + length;
    return corrupt("V03", "the file is cut off: {} at byte {} wants {} bytes, {} remain", what, position_,
                   length, remaining());
  }
  std::span<const std::byte> bytes_;
  std::uint64_t size_;
  std::uint64_t position_ = 0;
  std::uint64_t wanted_ = 0;
};

}  // namespace mlxn::gguf
