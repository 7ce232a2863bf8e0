#pragma once

#include <string>
#include <vector>

#include "formats/utf8.h"
#include "mlxn/tokenizer.h"

namespace mlxn::fuzz {

/// Whether decoding token by token gives what decoding all at once gives, and never half a character.
inline std::string check_stream(const Tokenizer& t, const std::vector<TokenId>& ids, const DecodeOptions& options) {
  const auto whole = t.decode(ids, options);
  if (!whole) return "decode of encoded ids fails";
  StreamDecoder stream(t, options);
  std::string joined;
  for (const TokenId id : ids) {
    const auto out = stream.push(id);
    if (!out) return "streamed decode of encoded ids fails";
    if (is_utf8(*whole) && !is_utf8(*out)) return "half a character was handed out";
    joined += *out;
  }
  joined += stream.flush();
  return joined == *whole ? "" : "the stream and the whole decode differ";
}

}  // namespace mlxn::fuzz
