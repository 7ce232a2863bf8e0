#include "tokenizer/special_tokens.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <queue>

#include "base/error.h"

namespace mlxn::tokenizer {
namespace {

// 16 bytes for each of 2^18 tokens; known vocabularies have a few thousand that are special. A node takes up to 32 bytes.
constexpr std::size_t kMaxNodes = std::size_t{1} << 22;

bool is_space(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

std::size_t NameFinder::slot_of(std::uint32_t node, unsigned char byte) const noexcept {
  std::size_t slot = hash_(std::uint64_t{node} << 8 | byte) & (slots_.size() - 1);
  while (slots_[slot] != kRoot && (nodes_[slots_[slot]].parent != node || nodes_[slots_[slot]].byte != byte)) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

/// kRoot if there is none.
std::uint32_t NameFinder::child(std::uint32_t node, unsigned char byte) const noexcept {
  return node == kRoot ? first_[byte] : slots_[slot_of(node, byte)];
}

std::uint32_t NameFinder::step(std::uint32_t node, char c) const noexcept {
  const auto byte = static_cast<unsigned char>(c);
  while (node != kRoot) {
    if (const std::uint32_t next = child(node, byte); next != kRoot) return next;
    node = nodes_[node].fail;
  }
  return first_[byte];
}

/// The nodes of all lesser depths must be there.
Result<std::uint32_t> NameFinder::add(std::uint32_t parent, unsigned char byte) {
  if (nodes_.size() == kMaxNodes) {
    return make_error(ErrorCode::limit_exceeded, "tokenizer: the texts of the special tokens make a trie of more than {} nodes",
                      kMaxNodes);
  }
  const auto node = static_cast<std::uint32_t>(nodes_.size());
  const std::uint32_t fail = parent == kRoot ? kRoot : step(nodes_[parent].fail, static_cast<char>(byte));
  nodes_.push_back({parent, fail, nodes_[fail].entry, byte});
  if (parent == kRoot) {
    first_[byte] = node;
    return node;
  }
  if (nodes_.size() * 2 > slots_.size()) {
    slots_.assign(slots_.size() * 2, kRoot);
    for (std::uint32_t i = 1; i < node; ++i) {
      if (nodes_[i].parent != kRoot) slots_[slot_of(nodes_[i].parent, nodes_[i].byte)] = i;
    }
  }
  slots_[slot_of(parent, byte)] = node;
  return node;
}

/// Jumps whose lengths follow the skew binary numbers reach any place of a chain in log n steps.
void NameFinder::link(std::uint32_t number, std::uint32_t shorter) noexcept {
  const Entry& next = entries_[shorter];
  const Entry& far = entries_[next.jump];
  const bool doubles = next.depth - far.depth == far.depth - entries_[far.jump].depth;
  entries_[number].shorter = shorter;
  entries_[number].jump = doubles ? far.jump : shorter;
  entries_[number].depth = next.depth + 1;
}

std::uint32_t NameFinder::at_most(std::uint32_t number, std::size_t length) const noexcept {
  while (entries_[number].length > length) {
    const Entry& e = entries_[number];
    number = entries_[e.jump].length > length ? e.jump : e.shorter;
  }
  return number == sentinel() ? kNone : number;
}

Result<NameFinder> NameFinder::make(std::span<const Name> names) {
  constexpr std::size_t kLeastSlots = 16;
  NameFinder out;
  for (const Name& name : names) out.entries_.push_back({name.text.size(), name.id, name.strips_right});
  const auto last = static_cast<std::uint32_t>(names.size());
  out.entries_.push_back({.shorter = last, .jump = last});
  out.nodes_.push_back({kRoot, kRoot, last, 0});
  out.slots_.assign(kLeastSlots, kRoot);
  // All names grow by one byte after the other, so that the nodes come in the order of their depths.
  std::vector<std::uint32_t> ends(names.size(), kRoot);
  std::size_t growing = names.size();
  for (std::size_t depth = 0; growing > 0; ++depth) {
    for (std::size_t i = 0; i < growing; ++i) {
      const auto byte = static_cast<unsigned char>(names[i].text[depth]);
      const std::uint32_t next = out.child(ends[i], byte);
      if (next != kRoot) {
        ends[i] = next;
      } else {
        MLXN_TRY(ends[i], out.add(ends[i], byte));
      }
    }
    for (; growing > 0 && names[growing - 1].text.size() == depth + 1; --growing) {
      Node& end = out.nodes_[ends[growing - 1]];
      out.link(static_cast<std::uint32_t>(growing - 1), end.entry);
      end.entry = static_cast<std::uint32_t>(growing - 1);
    }
  }
  return out;
}

Result<SpecialTokens> SpecialTokens::make(const Vocabulary& vocabulary, const std::vector<TokenId>& strips_right) {
  std::vector<NameFinder::Name> all;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenKind kind = vocabulary.kind(id);
    const bool is_control = kind == TokenKind::control || kind == TokenKind::unknown;
    const std::string_view text = vocabulary.text(id);
    if ((!is_control && kind != TokenKind::user_defined) || text.empty()) continue;
    all.push_back({text, id, std::binary_search(strips_right.begin(), strips_right.end(), id)});
  }
  std::sort(all.begin(), all.end(), [](const NameFinder::Name& a, const NameFinder::Name& b) {
    return a.text.size() != b.text.size() ? a.text.size() > b.text.size() : a.id < b.id;
  });
  std::vector<NameFinder::Name> user_defined;
  std::copy_if(all.begin(), all.end(), std::back_inserter(user_defined),
               [&](const NameFinder::Name& name) { return vocabulary.kind(name.id) == TokenKind::user_defined; });
  SpecialTokens out;
  MLXN_TRY(out.all_, NameFinder::make(all));
  MLXN_TRY(out.user_defined_, NameFinder::make(user_defined));
  return out;
}

std::vector<Fragment> SpecialTokens::split(std::string_view text, bool controls) const {
  const NameFinder& finder = controls ? all_ : user_defined_;
  std::vector<Fragment> out;
  // What may become a token: a name and where it ends, by the order in which they have their turn. Of the names that end at
  // one place only the longest waits.
  std::vector<std::uint64_t> found;
  const auto key = [](std::uint32_t entry, std::size_t end) { return std::uint64_t{entry} << 32 | end; };
  if (!finder.empty()) finder.scan(text, [&](std::size_t end, std::uint32_t entry) { found.push_back(key(entry, end)); });
  if (found.empty()) {
    if (!text.empty()) out.push_back({text});
    return out;
  }
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> waiting({}, std::move(found));

  struct Taken {
    std::size_t end;  // white space taken along included
    TokenId token;
  };
  std::map<std::size_t, Taken> taken;  // by where it begins
  while (!waiting.empty()) {
    const auto number = static_cast<std::uint32_t>(waiting.top() >> 32);
    std::size_t end = static_cast<std::uint32_t>(waiting.top());
    waiting.pop();
    const NameFinder::Entry& entry = finder.entry(number);
    const auto after = taken.lower_bound(end);
    const std::size_t free = after == taken.begin() ? 0 : std::prev(after)->second.end;
    if (free >= end) continue;  // as for all names that end here
    if (free > end - entry.length) {
      const std::uint32_t shorter = finder.at_most(number, end - free);
      if (shorter != NameFinder::kNone) waiting.push(key(shorter, end));
      continue;
    }
    const std::size_t begin = end - entry.length;
    if (entry.strips_right) {
      const std::size_t limit = after == taken.end() ? text.size() : after->first;
      while (end < limit && is_space(text[end])) ++end;
    }
    taken.emplace_hint(after, begin, Taken{end, entry.id});
  }

  std::size_t done = 0;
  for (const auto& [begin, stretch] : taken) {
    if (begin > done) out.push_back({text.substr(done, begin - done)});
    out.push_back({text.substr(begin, stretch.end - begin), stretch.token});
    done = stretch.end;
  }
  if (done < text.size()) out.push_back({text.substr(done)});
  return out;
}

}  // namespace mlxn::tokenizer
