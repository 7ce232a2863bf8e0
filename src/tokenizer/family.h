#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace mlxn::tokenizer {

/// What a family has where the file says nothing.
struct Defaults {
  std::optional<TokenId> bos, eos, unknown;
  bool adds_bos = false;
  /// Whether text at the start and after special tokens gets a space before it; nothing: never, whatever the file says.
  std::optional<bool> adds_space;
};

/// How one family of tokenizers cuts plain text into tokens and what its tokens stand for. Everything that
/// families have in common (special tokens, beginning and end of sequence, streaming) is outside.
class Family {
 public:
  virtual ~Family() = default;
  /// Appends the tokens of text that holds no special token. Time is n log n in its length.
  [[nodiscard]] virtual Result<void> encode(const Vocabulary& vocabulary, std::string_view text,
                                            std::vector<TokenId>& out) const = 0;
  /// Appends the bytes that a token stands for, if it is neither control nor unknown.
  virtual void append_piece(const Vocabulary& vocabulary, TokenId id, std::string& out) const = 0;
};

}  // namespace mlxn::tokenizer
