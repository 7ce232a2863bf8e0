#pragma once

#include <memory>
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

/// Encodes one text, whose fragments between special tokens come one after the other. Belongs to one thread.
class Encoder {
 public:
  virtual ~Encoder() = default;
  /// Appends the tokens of a fragment, which holds no special token and stays where it is until the last one was appended.
  /// Time is n log n in its length.
  [[nodiscard]] virtual Result<void> append(std::string_view fragment) = 0;
};

/// How one family of tokenizers cuts plain text into tokens and what its tokens stand for. Everything that
/// families have in common (special tokens, beginning and end of sequence, streaming) is outside.
class Family {
 public:
  virtual ~Family() = default;
  /// For a text of `text_bytes` bytes, whose tokens are appended to `out`; the family, the vocabulary and `out` outlive it.
  [[nodiscard]] virtual Result<std::unique_ptr<Encoder>> encoder(const Vocabulary& vocabulary, std::size_t text_bytes,
                                                                 std::vector<TokenId>& out) const = 0;
  /// Appends the bytes that a token stands for, if it is neither control nor unknown.
  virtual void append_piece(const Vocabulary& vocabulary, TokenId id, std::string& out) const = 0;
};

}  // namespace mlxn::tokenizer
