#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mlxn {

/// Length that a UTF-8 sequence has by its first byte: 1 to 4, or 0 if no sequence starts with it
/// (continuation bytes, 0xC0, 0xC1 and 0xF5 to 0xFF).
[[nodiscard]] constexpr std::size_t utf8_length(unsigned char lead) noexcept {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/// Whether `byte` may stand at `position` (1 to 3) of a sequence that starts with `lead`: overlong forms,
/// surrogates and code points above U+10FFFF all show in the second byte.
[[nodiscard]] constexpr bool utf8_continues(unsigned char lead, std::size_t position,
                                            unsigned char byte) noexcept {
  if ((byte & 0xc0) != 0x80) return false;
  if (position != 1) return true;
  switch (lead) {
    case 0xe0:
      return byte >= 0xa0;
    case 0xed:
      return byte < 0xa0;
    case 0xf0:
      return byte >= 0x90;
    case 0xf4:
      return byte < 0x90;
    default:
      return true;
  }
}

/// What stands at the start of `text` (not empty): the length of a whole valid character; or the number of
/// bytes of one that is valid as far as it goes but cut off by the end of the text (incomplete); or neither,
/// an invalid byte.
struct Utf8Step {
  enum class Kind : std::uint8_t { whole, incomplete, invalid };
  Kind kind;
  std::size_t bytes;  ///< 1 for an invalid byte
};
[[nodiscard]] constexpr Utf8Step utf8_step(std::string_view text) noexcept {
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t length = utf8_length(lead);
  if (length == 0) return {Utf8Step::Kind::invalid, 1};
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8Step::Kind::incomplete, i};
    if (!utf8_continues(lead, i, static_cast<unsigned char>(text[i]))) return {Utf8Step::Kind::invalid, 1};
  }
  return {Utf8Step::Kind::whole, length};
}

[[nodiscard]] constexpr bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (step.kind != Utf8Step::Kind::whole) return false;
    text.remove_prefix(step.bytes);
  }
  return true;
}

}  // namespace mlxn
