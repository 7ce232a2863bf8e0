#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "mlxn/tokenizer.h"
#include "tests/formats/gguf_builder.h"
#include "tokenizer/byte_text.h"

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

/// A small byte-level vocabulary: the letters of all bytes (token = byte), <|end|> and <|begin|>, then what a test adds.
class BpeBuilder {
 public:
  static constexpr TokenId kEnd = 256, kBegin = 257, kFirst = 258;
  BpeBuilder() {
    for (unsigned b = 0; b < 256; ++b) add(letters(std::string(1, static_cast<char>(b))));
    add("<|end|>", TokenKind::control).add("<|begin|>", TokenKind::control);
  }
  /// A text as the entries of such a vocabulary spell it.
  static std::string letters(std::string_view text) {
    std::string out;
    for (const char c : text) tokenizer::append_byte_letter(static_cast<unsigned char>(c), out);
    return out;
  }
  BpeBuilder& add(std::string_view entry, TokenKind kind = TokenKind::normal) {
    texts.emplace_back(entry);
    types.push_back(static_cast<std::int32_t>(kind));
    return *this;
  }
  /// A merge of two texts, and the token that it makes, unless the test wants none.
  BpeBuilder& merge(std::string_view left, std::string_view right, bool with_token = true) {
    merges.push_back(letters(left) + ' ' + letters(right));
    if (with_token) add(letters(std::string(left) + std::string(right)));
    return *this;
  }
  [[nodiscard]] GgufBuilder gguf(std::string_view pre = "gpt-2") const {
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", texts);
    b.array("tokenizer.ggml.token_type", types).strings("tokenizer.ggml.merges", merges);
    b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", kBegin);
    b.scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", kEnd);
    if (!pre.empty()) b.text("tokenizer.ggml.pre", pre);
    return b;
  }

  std::vector<std::string> texts, merges;
  std::vector<std::int32_t> types;
};

inline Result<Tokenizer> load_tokenizer(const GgufBuilder& builder) {
  const auto bytes = builder.build();
  MLXN_TRY(const GgufFile file, GgufFile::parse(bytes));
  return Tokenizer::from_gguf(file);
}

}  // namespace mlxn::testing
