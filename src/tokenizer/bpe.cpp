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

class BytePairs::TextEncoder final : public Encoder {
 public:
  TextEncoder(const BytePairs& family, PreTokenizer::Workspace workspace, const Vocabulary& vocabulary, std::size_t text_bytes,
              std::vector<TokenId>& out)
      : family_(family), workspace_(std::move(workspace)), vocabulary_(vocabulary), out_(out), cache_(text_bytes, out) {}

  Result<void> append(std::string_view fragment) override {
    return family_.splitter_.split(fragment, workspace_, [this](std::string_view word) {
      return cache_.append(word, [&] { return encode_word(word); });
    });
  }

 private:
  Result<void> encode_word(std::string_view word) {
    if (family_.ignore_merges_) {
      letters_.clear();
      for (const char c : word) append_byte_letter(static_cast<unsigned char>(c), letters_);
      if (const auto id = mergeable_token(vocabulary_, letters_)) {
        out_.push_back(*id);
        return {};
      }
    }
    merge_word(family_.merges_, word, parts_);
    for (const Part& part : parts_) {
      if (part.symbol < vocabulary_.size()) {
        out_.push_back(static_cast<TokenId>(part.symbol));
        continue;
      }
      for (const char c : word.substr(part.begin, part.length)) {
        const TokenId id = family_.byte_tokens_[static_cast<unsigned char>(c)];
        if (id >= 0) out_.push_back(id);
      }
    }
    return {};
  }

  const BytePairs& family_;
  PreTokenizer::Workspace workspace_;
  const Vocabulary& vocabulary_;
  std::vector<TokenId>& out_;
  WordCache cache_;
  std::vector<Part> parts_;
  std::string letters_;
};

Result<std::unique_ptr<Encoder>> BytePairs::encoder(const Vocabulary& vocabulary, std::size_t text_bytes,
                                                    std::vector<TokenId>& out) const {
  MLXN_TRY(PreTokenizer::Workspace workspace, splitter_.workspace());
  return std::unique_ptr<Encoder>(std::make_unique<TextEncoder>(*this, std::move(workspace), vocabulary, text_bytes, out));
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
