#include "tokenizer/unicode.h"

#include <algorithm>
#include <iterator>

namespace mlxn::tokenizer {
namespace {

// A run of one class: its first code point above its class, so that runs sort by where they start.
constexpr std::uint32_t run(std::uint32_t first, CharClass c) noexcept { return first << 3 | static_cast<std::uint32_t>(c); }

#define O(first) run(first, CharClass::other),
#define L(first) run(first, CharClass::letter),
#define M(first) run(first, CharClass::mark),
#define N(first) run(first, CharClass::number),
#define P(first) run(first, CharClass::punctuation),
#define S(first) run(first, CharClass::symbol),
#define W(first) run(first, CharClass::space),
constexpr std::uint32_t kRuns[] = {
#include "tokenizer/unicode_classes.inc"
};
#undef O
#undef L
#undef M
#undef N
#undef P
#undef S
#undef W

}  // namespace

CharClass char_class(std::uint32_t code_point) noexcept {
  if (code_point < 0x80 || code_point > 0x10ffff) return CharClass::other;
  const auto after = std::upper_bound(std::begin(kRuns), std::end(kRuns), code_point << 3 | 7);
  return static_cast<CharClass>(*std::prev(after) & 7);
}

}  // namespace mlxn::tokenizer
