#include "tokenizer/bpe.h"

#include <fmt/format.h>

#include <algorithm>

#include "tokenizer/byte_text.h"
#include "tokenizer/word_cache.h"

namespace mlxn::tokenizer {

Result<std::unique_ptr<const BytePairs>> BytePairs::from_gguf(const GgufFile& file, const Vocabulary& vocabulary,
                                                              const SplitRule& rule,
                                                              std::vector<std::string>& notes) {
  MLXN_TRY(MergeTable merges, MergeTable::from_gguf(file, vocabulary, notes));
  MLXN_TRY(PreTokenizer splitter, PreTokenizer::make(rule));
  std::unique_ptr<BytePairs> out(new BytePairs(std::move(splitter), std::move(merges)));
  out->ignore_merges_ = rule.ignore_merges;
  for (unsigned b = 0; b < 256; ++b) {
    const auto byte = static_cast<unsigned char>(b);
    std::string letter;
    append_byte_letter(byte, letter);
    const auto id = mergeable_token(vocabulary, letter);
    out->byte_tokens_[b] = id ? *id : vocabulary.byte_token(byte);
  }
  const auto missing = std::count(out->byte_tokens_.begin(), out->byte_tokens_.end(), -1);
  if (missing > 0) notes.push_back(fmt::format("{} bytes have no token: they are left out of texts", missing));
  return std::unique_ptr<const BytePairs>(std::move(out));
}

Result<void> BytePairs::encode(const Vocabulary& vocabulary, std::string_view text, std::vector<TokenId>& out) const {
  WordCache cache(text.size(), out);
  std::vector<Part> parts;
  std::string letters;

  const auto encode_word = [&](std::string_view word) -> Result<void> {
    if (ignore_merges_) {
      letters.clear();
      for (const char c : word) append_byte_letter(static_cast<unsigned char>(c), letters);
      if (const auto id = mergeable_token(vocabulary, letters)) {
        out.push_back(*id);
        return {};
      }
    }
    merge_word(merges_, word, parts);
    for (const Part& part : parts) {
      if (part.symbol < vocabulary.size()) {
        out.push_back(static_cast<TokenId>(part.symbol));
        continue;
      }
      for (const char c : word.substr(part.begin, part.length)) {
        const TokenId id = byte_tokens_[static_cast<unsigned char>(c)];
        if (id >= 0) out.push_back(id);
      }
    }
    return {};
  };
  return splitter_.split(
      text, [&](std::string_view word) { return cache.append(word, [&] { return encode_word(word); }); });
}

void BytePairs::append_piece(const Vocabulary& vocabulary, TokenId id, std::string& out) const {
  switch (vocabulary.kind(id)) {
    case TokenKind::byte:
      out += vocabulary.byte_of(id);
      return;
    case TokenKind::user_defined:
      out += vocabulary.text(id);
      return;
    case TokenKind::normal:
    case TokenKind::unused:
    case TokenKind::unknown:
    case TokenKind::control:
      append_bytes_of(vocabulary.text(id), out);
      return;
  }
}

}  // namespace mlxn::tokenizer
