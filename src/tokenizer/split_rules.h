#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mlxn::tokenizer {

/// A set of characters that patterns call by \p{name}.
struct CharSet {
  struct Range {
    std::uint32_t first, last;
  };
  std::string_view name;
  std::string_view ascii;  ///< its members below U+0080, as they stand in a bracket of a pattern
  std::span<const Range> ranges;  ///< from U+0080 on, ascending; white space in them does not belong to the set
};

/// How a byte-level BPE tokenizer cuts text into words before it merges bytes inside them.
struct SplitRule {
  /// Every step cuts each piece that the one before left: what its pattern matches is a piece, what stands between two
  /// matches another. Perl syntax with \p{L} \p{M} \p{N} \p{P} \p{S} for categories, \p{+L} for letters from U+0080 on
  /// and \p{name} for a set; \s is Unicode's White_Space. A pattern takes time in proportion to what it looks at.
  std::span<const std::string_view> steps;
  std::span<const CharSet> sets = {};
  bool ignore_merges = false;  ///< a word that is a token becomes that token, whatever merges would make of it
  bool adds_bos = false;       ///< where the file does not say
  bool has_bos = true;         ///< whether a file that names no beginning-of-sequence token has the usual one
};

/// The rule of a value of tokenizer.ggml.pre; none for a name that is not known.
[[nodiscard]] const SplitRule* find_split_rule(std::string_view name) noexcept;
/// The names in alphabetical order, with commas.
[[nodiscard]] std::string split_rule_names();
/// Name `index` of all, empty behind the last.
[[nodiscard]] std::string_view split_rule_name(std::size_t index) noexcept;

}  // namespace mlxn::tokenizer
