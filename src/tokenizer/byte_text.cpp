#include "tokenizer/byte_text.h"

#include "formats/utf8.h"
#include "tokenizer/unicode.h"

namespace mlxn::tokenizer {

void append_bytes_of(std::string_view entry, std::string& out) {
  while (!entry.empty()) {
    const Utf8Step step = utf8_step(entry);
    const std::size_t bytes = step.kind == Utf8Step::Kind::whole ? step.bytes : 1;
    const auto byte = step.kind == Utf8Step::Kind::whole ? byte_of_letter(code_point_of(entry.substr(0, bytes))) : std::nullopt;
    if (byte) {
      out += static_cast<char>(*byte);
    } else {
      out += entry.substr(0, bytes);
    }
    entry.remove_prefix(bytes);
  }
}

}  // namespace mlxn::tokenizer
