#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace mlxn::tokenizer {

/// Remembers which tokens the words of one text became, in all of its fragments: most words of a text have been seen before.
/// The tokens stay where they are, in the output; a bounded table only knows where.
class WordCache {
 public:
  /// For a text of `text_bytes`: words are parts of it, or of something that lives as long as this; `out` is only appended to.
  WordCache(std::size_t text_bytes, std::vector<TokenId>& out)
      : out_(out), slots_(std::bit_ceil(std::clamp<std::size_t>(text_bytes / 8, kLeast, kMost))) {}

  /// Appends the word's tokens: those it had before, or those that encode() appends, which returns a Result<void>.
  template <class Encode>
  [[nodiscard]] Result<void> append(std::string_view word, Encode&& encode) {
    Slot& slot = slots_[hash_(word) & (slots_.size() - 1)];
    if (slot.word == word) {
      const std::size_t end = out_.size();
      out_.resize(end + slot.tokens);
      std::copy_n(out_.begin() + static_cast<std::ptrdiff_t>(slot.begin), slot.tokens,
                  out_.begin() + static_cast<std::ptrdiff_t>(end));
      return {};
    }
    const std::size_t begin = out_.size();
    MLXN_CHECK(encode());
    slot = {word, begin, out_.size() - begin};
    return {};
  }

 private:
  static constexpr std::size_t kLeast = 16, kMost = 1 << 14;
  struct Slot {
    std::string_view word;  // empty: free
    std::size_t begin = 0, tokens = 0;
  };
  std::vector<TokenId>& out_;
  std::vector<Slot> slots_;
  TextHash hash_;
};

}  // namespace mlxn::tokenizer
