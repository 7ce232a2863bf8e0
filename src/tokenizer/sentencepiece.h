#pragma once

#include <optional>

#include "tokenizer/cutter.h"
#include "tokenizer/family.h"

namespace mlxn::tokenizer {

/// SentencePiece BPE as llama.cpp runs it: characters are merged pairwise, the pair whose text has the
/// highest score first and the leftmost of equals; what has no token in the end becomes byte tokens.
/// Two things differ on purpose: plain text cannot be merged into control or byte tokens, and bytes that are
/// no valid UTF-8 stand alone instead of swallowing what follows.
class SentencePiece final : public Family {
 public:
  SentencePiece(const Vocabulary& vocabulary, std::optional<TokenId> unknown);
  Result<std::unique_ptr<Encoder>> encoder(const Vocabulary& vocabulary, std::size_t text_bytes,
                                           std::vector<TokenId>& out) const override;
  void append_piece(const Vocabulary& vocabulary, TokenId id, std::string& out) const override;

 private:
  class TextEncoder;
  std::optional<TokenId> unknown_;
  Cutter cutter_;
};

}  // namespace mlxn::tokenizer
