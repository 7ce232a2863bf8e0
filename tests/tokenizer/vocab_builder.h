#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "mlxn/tokenizer.h"
#include "tests/formats/gguf_builder.h"

namespace mlxn::testing {

/// A small vocabulary: <unk>, <s>, </s>, the 256 byte tokens, then what a test adds.
class VocabBuilder {
 public:
  VocabBuilder() {
    add("<unk>", 0, TokenKind::unknown).add("<s>", 0, TokenKind::control).add("</s>", 0, TokenKind::control);
    for (unsigned b = 0; b < 256; ++b) {
      char text[8];
      std::snprintf(text, sizeof text, "<0x%02X>", b);
      add(text, 0, TokenKind::byte);
    }
  }
  VocabBuilder& add(std::string_view text, float score = 0, TokenKind kind = TokenKind::normal) {
    texts.emplace_back(text);
    scores.push_back(score);
    types.push_back(static_cast<std::int32_t>(kind));
    return *this;
  }
  [[nodiscard]] GgufBuilder gguf() const {
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", texts);
    b.array("tokenizer.ggml.scores", scores).array("tokenizer.ggml.token_type", types);
    return b;
  }

  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
};

inline Result<Tokenizer> load_tokenizer(const GgufBuilder& builder) {
  const auto bytes = builder.build();
  MLXN_TRY(const GgufFile file, GgufFile::parse(bytes));
  return Tokenizer::from_gguf(file);
}

}  // namespace mlxn::testing
