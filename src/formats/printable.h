#pragma once

#include <string>
#include <string_view>

#include "formats/utf8.h"

namespace mlxn {

/// Text from a file as one line that is safe to show: control characters and bytes that are no UTF-8 are
/// spelled \xAB, so that nothing in it can move a terminal's cursor.
[[nodiscard]] inline std::string printable(std::string_view text) {
  constexpr char hex[] = "0123456789abcdef";
  std::string out;
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    const std::size_t length = step.kind == Utf8Step::Kind::whole ? step.bytes : 1;
    const auto first = static_cast<unsigned char>(text[0]);
    const bool control =
        first < 0x20 || first == 0x7f ||
        (length == 2 && first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);  // U+0080 to U+009F
    for (const char c : text.substr(0, length)) {
      if (control || step.kind != Utf8Step::Kind::whole) {
        const auto b = static_cast<unsigned char>(c);
        out += {'\\', 'x', hex[b >> 4], hex[b & 15]};
      } else {
        out += c;
      }
    }
    text.remove_prefix(length);
  }
  return out;
}

/// Text of any length from a file, for an error: the first 64 bytes or a little less, printable and in quotes.
[[nodiscard]] inline std::string excerpt(std::string_view text) {
  constexpr std::size_t kShown = 64;
  std::size_t end = 0;
  while (end < text.size()) {  // between characters
    const Utf8Step step = utf8_step(text.substr(end));
    const std::size_t bytes = step.kind == Utf8Step::Kind::whole ? step.bytes : 1;
    if (end + bytes > kShown) break;
    end += bytes;
  }
  std::string out = printable(text.substr(0, end));
  out.insert(out.begin(), '\'');
  out += end < text.size() ? "\xe2\x80\xa6'" : "'";  // U+2026
  return out;
}

}  // namespace mlxn
