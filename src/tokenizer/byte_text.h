#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mlxn::tokenizer {

/// The alphabet in which byte-level vocabularies write bytes: a printable character of Latin-1 stands for itself, the
/// other 68 bytes are U+0100 and following, in order.
inline constexpr std::array<std::uint16_t, 256> kByteLetters = [] {
  std::array<std::uint16_t, 256> letters{};
  std::uint16_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
    letters[b] = printable ? static_cast<std::uint16_t>(b) : next++;
  }
  return letters;
}();

/// The byte that a letter of this alphabet stands for.
[[nodiscard]] constexpr std::optional<unsigned char> byte_of_letter(std::uint32_t code_point) noexcept {
  constexpr std::size_t kLetters = 0x100 + 68;
  constexpr std::array<std::int16_t, kLetters> bytes = [] {
    std::array<std::int16_t, kLetters> out{};
    for (std::int16_t& byte : out) byte = -1;
    for (unsigned b = 0; b < 256; ++b) out[kByteLetters[b]] = static_cast<std::int16_t>(b);
    return out;
  }();
  if (code_point >= kLetters || bytes[code_point] < 0) return std::nullopt;
  return static_cast<unsigned char>(bytes[code_point]);
}

inline void append_byte_letter(unsigned char byte, std::string& out) {
  const std::uint16_t letter = kByteLetters[byte];
  if (letter < 0x80) {
    out += static_cast<char>(letter);
  } else {
    out += static_cast<char>(0xc0 | letter >> 6);
    out += static_cast<char>(0x80 | (letter & 0x3f));
  }
}

/// The text that a token's entry stands for. Characters outside the alphabet stand for themselves.
void append_bytes_of(std::string_view entry, std::string& out);

}  // namespace mlxn::tokenizer
