#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace mlxn::tokenizer {

/// What stands for a stretch of a word while it is merged: a token's id, or a number from the vocabulary's size on for a
/// text that merges name and that is no token.
using Symbol = std::uint32_t;

/// The merges of a byte-level BPE vocabulary.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank;  ///< place in the file's list: the lowest goes first
    Symbol result;
  };
  /// Errors: not_found (no merges), corrupt_file with rule V15, out_of_memory.
  [[nodiscard]] static Result<MergeTable> from_gguf(const GgufFile& file, const Vocabulary& vocabulary,
                                                    std::vector<std::string>& notes);

  [[nodiscard]] Symbol symbol_of_byte(unsigned char byte) const noexcept { return bytes_[byte]; }
  /// What two adjacent symbols become; rank kNoRank if they do not.
  static constexpr std::uint32_t kNoRank = ~std::uint32_t{0};
  [[nodiscard]] Merge find(Symbol left, Symbol right) const noexcept;

 private:
  struct Slot {
    std::uint64_t pair = kFree;
    Merge merge{};
  };
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  static constexpr std::uint64_t pair_of(Symbol left, Symbol right) noexcept {
    return std::uint64_t{left} << 32 | right;
  }
  [[nodiscard]] std::size_t slot_of(std::uint64_t pair) const noexcept;

  std::array<Symbol, 256> bytes_ = {};
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  TextHash hash_;
};

/// The token that plain text can become by merges: no control, unknown or byte token, and no user-defined one that would
/// not give the text back.
[[nodiscard]] std::optional<TokenId> mergeable_token(const Vocabulary& vocabulary, std::string_view entry);

/// The stretch of a word that a symbol stands for.
struct Part {
  Symbol symbol;
  std::uint32_t begin, length;  // bytes
};
/// Merges the bytes of a word; n log n in its length.
void merge_word(const MergeTable& merges, std::string_view word, std::vector<Part>& parts);

}  // namespace mlxn::tokenizer
