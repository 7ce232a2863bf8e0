#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace mlxn::tokenizer {

/// A stretch of the input: text that is still to be encoded, or a token that stands in it by name.
struct Fragment {
  std::string_view text;  ///< of a token with the white space that it took along
  TokenId token = -1;     ///< -1 for text
};

/// Finds the tokens that a text names. Longer ones win over shorter ones wherever they stand, then the lower
/// id, then the leftmost: the order in which llama.cpp cuts them out one after the other. All tokens of one
/// length are looked for in one pass over the text, so that thousands of them cost little.
class SpecialTokens {
 public:
  /// `strips_right`: the white space that follows such a token belongs to it.
  void build(const Vocabulary& vocabulary, const std::vector<TokenId>& strips_right);
  /// Without `controls`, user-defined tokens only.
  [[nodiscard]] std::vector<Fragment> split(const Vocabulary& vocabulary, std::string_view text,
                                            bool controls) const;

 private:
  struct Entry {
    std::uint64_t hash;
    TokenId id;
    bool is_control;
    bool strips_right;
  };
  struct Group {  // all tokens of one length
    std::size_t length;
    std::vector<Entry> entries;  // by hash, then id
    std::array<bool, 256> first = {};
    bool all_control = true;
  };
  std::vector<Group> groups_;  // longest first
};

}  // namespace mlxn::tokenizer
