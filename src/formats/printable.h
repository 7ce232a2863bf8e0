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

}  // namespace mlxn
