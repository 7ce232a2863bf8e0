#pragma once

#include <cstdint>
#include <string_view>

namespace mlxn::tokenizer {

/// What splitting rules tell characters apart by: general categories L, M, N, P, S, and White_Space, of Unicode 15.1.
enum class CharClass : std::uint8_t { other, letter, mark, number, punctuation, symbol, space };

/// The class of a code point from U+0080 on; `other` for one that is not assigned or beyond U+10FFFF.
[[nodiscard]] CharClass char_class(std::uint32_t code_point) noexcept;

/// The code point of a whole, valid UTF-8 sequence.
[[nodiscard]] constexpr std::uint32_t code_point_of(std::string_view sequence) noexcept {
  const auto byte = [&](std::size_t i) { return std::uint32_t{static_cast<unsigned char>(sequence[i])}; };
  switch (sequence.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  }
}

}  // namespace mlxn::tokenizer
