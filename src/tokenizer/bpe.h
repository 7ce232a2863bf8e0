#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "tokenizer/family.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/pre_tokenizer.h"

namespace mlxn::tokenizer {

/// Byte-level BPE as llama.cpp runs it: the text is split into words, each byte of a word is a symbol, and the adjacent
/// pair whose merge stands first in the file's list becomes one symbol, the leftmost of equals first, until no pair is in
/// the list. A symbol that is no token in the end becomes the tokens of its bytes; a byte without one is left out, and a
/// note says at load that there are such.
/// Two things differ on purpose: plain text cannot be merged into control tokens, and bytes that are no valid UTF-8 keep
/// their own tokens instead of becoming U+FFFD.
class BytePairs final : public Family {
 public:
  /// Errors: corrupt_file with rule V15 (tokenizer.ggml.merges), not_found (the key is missing), out_of_memory.
  [[nodiscard]] static Result<std::unique_ptr<const BytePairs>> from_gguf(const GgufFile& file,
                                                                          const Vocabulary& vocabulary,
                                                                          const SplitRule& rule,
                                                                          std::vector<std::string>& notes);

  Result<std::unique_ptr<Encoder>> encoder(const Vocabulary& vocabulary, std::size_t text_bytes,
                                           std::vector<TokenId>& out) const override;
  void append_piece(const Vocabulary& vocabulary, TokenId id, std::string& out) const override;

 private:
  class TextEncoder;
  BytePairs(PreTokenizer splitter, MergeTable merges) noexcept
      : splitter_(std::move(splitter)), merges_(std::move(merges)) {}

  PreTokenizer splitter_;
  MergeTable merges_;
  bool ignore_merges_ = false;
  std::array<TokenId, 256> byte_tokens_ = {};  // -1: none
};

}  // namespace mlxn::tokenizer
