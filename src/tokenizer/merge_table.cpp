#include "tokenizer/merge_table.h"

#include <algorithm>
#include <bit>
#include <string>
#include <unordered_map>

#include "formats/gguf/cursor.h"
#include "formats/printable.h"
#include "tokenizer/byte_text.h"

namespace mlxn::tokenizer {
namespace {

constexpr std::string_view kKey = "tokenizer.ggml.merges";
constexpr std::uint64_t kMaxMerges = std::uint64_t{1} << 24;

/// Numbers for texts: tokens have theirs already.
class Symbols {
 public:
  explicit Symbols(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}
  Symbol of(const std::string& text) {
    if (const auto id = mergeable_token(vocabulary_, text)) return static_cast<Symbol>(*id);
    const auto next = static_cast<Symbol>(vocabulary_.size() + others_.size());
    return others_.try_emplace(text, next).first->second;
  }
  /// Texts of more than one byte that are no tokens.
  [[nodiscard]] std::size_t absent() const noexcept { return others_.size(); }

 private:
  const Vocabulary& vocabulary_;
  std::unordered_map<std::string, Symbol, TextHash> others_;
};

}  // namespace

std::optional<TokenId> mergeable_token(const Vocabulary& vocabulary, std::string_view entry) {
  const auto id = vocabulary.find(entry);
  if (!id) return std::nullopt;
  switch (vocabulary.kind(*id)) {
    case TokenKind::normal:
    case TokenKind::unused:
      return id;
    case TokenKind::user_defined: {
      std::string bytes;
      append_bytes_of(entry, bytes);
      return bytes == entry ? id : std::nullopt;
    }
    case TokenKind::unknown:
    case TokenKind::control:
    case TokenKind::byte:
      return std::nullopt;
  }
  return std::nullopt;
}

std::size_t MergeTable::slot_of(std::uint64_t pair) const noexcept {
  std::size_t slot = hash_(pair) & (slots_.size() - 1);
  while (slots_[slot].pair != pair && slots_[slot].pair != kFree) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

MergeTable::Merge MergeTable::find(Symbol left, Symbol right) const noexcept {
  const Slot& slot = slots_[slot_of(pair_of(left, right))];
  return slot.pair == kFree ? Merge{kNoRank, 0} : slot.merge;
}

Result<MergeTable> MergeTable::from_gguf(const GgufFile& file, const Vocabulary& vocabulary,
                                         std::vector<std::string>& notes) {
  MLXN_TRY(const GgufStrings lines, file.get_strings(kKey));
  if (lines.size() > kMaxMerges) return gguf::corrupt("V15", "{} merges, at most {}", lines.size(), kMaxMerges);
  MergeTable table;
  table.slots_.resize(std::bit_ceil(std::max<std::size_t>(lines.size() * 2, 2)));
  Symbols symbols(vocabulary);
  for (unsigned b = 0; b < 256; ++b) {
    std::string letter;
    append_byte_letter(static_cast<unsigned char>(b), letter);
    table.bytes_[b] = symbols.of(letter);
  }
  const std::size_t single = symbols.absent();
  std::string left, right, both;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string_view line = lines[i];
    const std::size_t space = line.find(' ', 1);  // a space at the start is the left side itself
    if (space == std::string_view::npos || space + 1 == line.size()) {
      return gguf::corrupt("V15", "merge {} is {}, wanted two texts with a space between them", i, excerpt(line));
    }
    left = line.substr(0, space);
    right = line.substr(space + 1);
    both = left + right;
    const std::uint64_t pair = pair_of(symbols.of(left), symbols.of(right));
    Slot& slot = table.slots_[table.slot_of(pair)];
    if (slot.pair != kFree) continue;  // named before, and the first rank counts
    slot = {pair, {static_cast<std::uint32_t>(i), symbols.of(both)}};
  }
  if (symbols.absent() > single) {
    notes.push_back(fmt::format("{} texts that the merges name are no tokens", symbols.absent() - single));
  }
  return table;
}

namespace {

/// Words up to this length look at all pairs for every merge, which is faster than a heap as long as they are few.
constexpr std::size_t kShort = 32;

void merge_short(const MergeTable& merges, std::vector<Part>& parts) {
  std::array<MergeTable::Merge, kShort> found;  // of parts i and i + 1
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) found[i] = merges.find(parts[i].symbol, parts[i + 1].symbol);
  while (parts.size() > 1) {
    const std::size_t pairs = parts.size() - 1;
    std::size_t best = 0;
    for (std::size_t i = 1; i < pairs; ++i) {
      if (found[i].rank < found[best].rank) best = i;
    }
    if (found[best].rank == MergeTable::kNoRank) return;
    parts[best].symbol = found[best].result;
    parts[best].length += parts[best + 1].length;
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    for (std::size_t i = best + 1; i + 1 < pairs; ++i) found[i] = found[i + 1];
    if (best > 0) found[best - 1] = merges.find(parts[best - 1].symbol, parts[best].symbol);
    if (best + 1 < parts.size()) found[best] = merges.find(parts[best].symbol, parts[best + 1].symbol);
  }
}

/// The same for any length: a chain of parts, and a heap of the merges that can be done.
class LongWord {
 public:
  LongWord(const MergeTable& merges, std::vector<Part>& parts) : merges_(merges), parts_(parts), links_(parts.size()) {
    for (std::uint32_t i = 0; i < links_.size(); ++i) {
      links_[i].previous = i == 0 ? kNone : i - 1;
      links_[i].next = i + 1 == links_.size() ? kNone : i + 1;
    }
    for (std::uint32_t i = 0; i + 1 < links_.size(); ++i) {
      links_[i].merge = merges_.find(parts_[i].symbol, parts_[i + 1].symbol);
      if (links_[i].merge.rank != MergeTable::kNoRank) heap_.push_back(key(i));
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void run() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const std::uint64_t top = heap_.back();
      heap_.pop_back();
      const auto left = static_cast<std::uint32_t>(top);
      if (key(left) != top) continue;  // the pair is another by now
      const std::uint32_t right = links_[left].next;
      parts_[left].symbol = links_[left].merge.result;
      parts_[left].length += parts_[right].length;
      parts_[right].length = 0;
      links_[right].merge.rank = MergeTable::kNoRank;
      links_[left].next = links_[right].next;
      if (links_[left].next != kNone) links_[links_[left].next].previous = left;
      look_up(left);
      if (links_[left].previous != kNone) look_up(links_[left].previous);
    }
    std::erase_if(parts_, [](const Part& part) { return part.length == 0; });
  }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  struct Link {
    std::uint32_t previous, next;
    MergeTable::Merge merge{MergeTable::kNoRank, 0};  // with the next part
  };
  /// Sorts by rank, then by place.
  [[nodiscard]] std::uint64_t key(std::uint32_t left) const noexcept {
    return std::uint64_t{links_[left].merge.rank} << 32 | left;
  }
  void look_up(std::uint32_t left) {
    Link& link = links_[left];
    link.merge.rank = MergeTable::kNoRank;
    if (link.next == kNone) return;
    link.merge = merges_.find(parts_[left].symbol, parts_[link.next].symbol);
    if (link.merge.rank == MergeTable::kNoRank) return;
    heap_.push_back(key(left));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  const MergeTable& merges_;
  std::vector<Part>& parts_;
  std::vector<Link> links_;
  std::vector<std::uint64_t> heap_;
};

}  // namespace

void merge_word(const MergeTable& merges, std::string_view word, std::vector<Part>& parts) {
  parts.clear();
  for (std::uint32_t i = 0; i < word.size(); ++i) {
    parts.push_back({merges.symbol_of_byte(static_cast<unsigned char>(word[i])), i, 1});
  }
  if (parts.size() <= kShort) {
    merge_short(merges, parts);
  } else {
    LongWord(merges, parts).run();
  }
}

}  // namespace mlxn::tokenizer
