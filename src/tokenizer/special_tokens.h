#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace mlxn::tokenizer {

/// A stretch of the input: text that is still to be encoded, or a token that stands in it by name.
struct Fragment {
  std::string_view text;  ///< of a token with the white space that it took along
  TokenId token = -1;     ///< -1 for text
};

/// Finds all places in a text where one of many names ends, in one pass whose time depends on the text alone: the trie of
/// the names, each node linked to the longest end of its path that is in the trie too (Aho and Corasick, 1975).
class NameFinder {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  struct Name {
    std::string_view text;  // needed by make() alone
    TokenId id;
    bool strips_right;
  };
  /// `names`: longest first, none empty and none twice. Errors: limit_exceeded, out_of_memory.
  [[nodiscard]] static Result<NameFinder> make(std::span<const Name> names);

  [[nodiscard]] bool empty() const noexcept { return entries_.size() <= 1; }
  /// f(end, entry) for every place where a name ends; the entry is the longest one that does.
  template <class F>
  void scan(std::string_view text, F&& f) const {
    std::uint32_t node = kRoot;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = step(node, text[i]);
      if (nodes_[node].entry != sentinel()) f(i + 1, nodes_[node].entry);
    }
  }

  /// A name; its number is its place in the list that make() took.
  struct Entry {
    std::size_t length = 0;
    TokenId id = -1;
    bool strips_right = false;
    std::uint32_t shorter = 0;            // the longest name that ends this one
    std::uint32_t jump = 0, depth = 0;    // an entry further along that chain, and how many it has
  };
  [[nodiscard]] const Entry& entry(std::uint32_t number) const noexcept { return entries_[number]; }
  /// The first of `number` and the ever shorter names that end it with at most `length` bytes; kNone if there is none.
  [[nodiscard]] std::uint32_t at_most(std::uint32_t number, std::size_t length) const noexcept;

 private:
  static constexpr std::uint32_t kRoot = 0;
  struct Node {
    std::uint32_t parent, fail;
    std::uint32_t entry;  // the longest name that ends here
    unsigned char byte;
  };
  [[nodiscard]] std::uint32_t sentinel() const noexcept { return static_cast<std::uint32_t>(entries_.size() - 1); }
  [[nodiscard]] std::uint32_t step(std::uint32_t node, char c) const noexcept;
  [[nodiscard]] std::uint32_t child(std::uint32_t node, unsigned char byte) const noexcept;
  [[nodiscard]] std::size_t slot_of(std::uint32_t node, unsigned char byte) const noexcept;
  Result<std::uint32_t> add(std::uint32_t parent, unsigned char byte);
  void link(std::uint32_t number, std::uint32_t shorter) noexcept;

  std::vector<Entry> entries_;  // behind the last name one of length 0 that ends every chain
  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> first_ = {};  // children of the root; kRoot: none
  std::vector<std::uint32_t> slots_;           // the other children: open addressing, a power of two, at most half full
  TextHash hash_;
};

/// Finds the tokens that a text names. Longer ones win over shorter ones wherever they stand, then the lower
/// id, then the leftmost: the order in which llama.cpp cuts them out one after the other. Time is n log n in the length
/// of the text, however many tokens there are.
class SpecialTokens {
 public:
  /// `strips_right`, ascending: the white space that follows such a token belongs to it.
  /// Errors: limit_exceeded (the tokens' texts make a trie of more than 2^22 nodes), out_of_memory.
  [[nodiscard]] static Result<SpecialTokens> make(const Vocabulary& vocabulary, const std::vector<TokenId>& strips_right);
  /// Without `controls`, user-defined tokens only.
  [[nodiscard]] std::vector<Fragment> split(std::string_view text, bool controls) const;

 private:
  NameFinder all_, user_defined_;
};

}  // namespace mlxn::tokenizer
