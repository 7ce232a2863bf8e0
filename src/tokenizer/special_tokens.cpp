#include "tokenizer/special_tokens.h"

#include <algorithm>
#include <map>

namespace mlxn::tokenizer {
namespace {

// Hash of a text: sum of byte * kBase^(bytes after it), modulo 2^64, so that the hash of any part of a text
// comes from the hashes of its prefixes. A collision costs one comparison.
constexpr std::uint64_t kBase = 0x9e3779b97f4a7c15u;

constexpr std::uint64_t extend(std::uint64_t hash, char c) noexcept {
  return hash * kBase + static_cast<unsigned char>(c) + 1;
}

std::uint64_t power(std::size_t exponent) noexcept {
  std::uint64_t out = 1;
  for (std::uint64_t factor = kBase; exponent > 0; exponent >>= 1, factor *= factor) {
    if (exponent & 1) out *= factor;
  }
  return out;
}

bool is_space(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

void SpecialTokens::build(const Vocabulary& vocabulary, const std::vector<TokenId>& strips_right) {
  std::map<std::size_t, Group, std::greater<>> by_length;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenKind kind = vocabulary.kind(id);
    const bool is_control = kind == TokenKind::control || kind == TokenKind::unknown;
    const std::string_view text = vocabulary.text(id);
    if ((!is_control && kind != TokenKind::user_defined) || text.empty()) continue;
    Group& group = by_length[text.size()];
    group.length = text.size();
    group.first[static_cast<unsigned char>(text[0])] = true;
    group.all_control = group.all_control && is_control;
    std::uint64_t hash = 0;
    for (const char c : text) hash = extend(hash, c);
    const bool strips = std::find(strips_right.begin(), strips_right.end(), id) != strips_right.end();
    group.entries.push_back({hash, id, is_control, strips});
  }
  for (auto& [length, group] : by_length) {
    std::sort(group.entries.begin(), group.entries.end(), [](const Entry& a, const Entry& b) {
      return a.hash != b.hash ? a.hash < b.hash : a.id < b.id;
    });
    groups_.push_back(std::move(group));
  }
}

std::vector<Fragment> SpecialTokens::split(const Vocabulary& vocabulary, std::string_view text,
                                           bool controls) const {
  struct Match {
    const Entry* entry;
    std::size_t begin, end;  // white space taken along included
  };
  std::vector<Match> matches;
  std::vector<std::uint64_t> prefix;  // hashes of the first i bytes; made when a group needs them
  std::vector<bool> taken(text.size(), false);

  std::vector<Match> candidates;
  for (const Group& group : groups_) {
    if (group.length > text.size() || (group.all_control && !controls)) continue;
    candidates.clear();
    const std::uint64_t shift = power(group.length);
    for (std::size_t i = 0; i + group.length <= text.size(); ++i) {
      if (!group.first[static_cast<unsigned char>(text[i])]) continue;
      if (prefix.empty()) {
        prefix.reserve(text.size() + 1);
        prefix.push_back(0);
        for (const char c : text) prefix.push_back(extend(prefix.back(), c));
      }
      const std::uint64_t hash = prefix[i + group.length] - prefix[i] * shift;
      auto entry = std::lower_bound(group.entries.begin(), group.entries.end(), hash,
                                    [](const Entry& e, std::uint64_t wanted) { return e.hash < wanted; });
      for (; entry != group.entries.end() && entry->hash == hash; ++entry) {
        if (entry->is_control && !controls) continue;
        if (text.substr(i, group.length) != vocabulary.text(entry->id)) continue;
        candidates.push_back({&*entry, i, i + group.length});
        // Of one token alone the leftmost match wins, and what it covers need not be looked at.
        if (group.entries.size() == 1 && !taken[i] && !taken[i + group.length - 1]) i += group.length - 1;
        break;
      }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Match& a, const Match& b) { return a.entry->id < b.entry->id; });
    for (Match match : candidates) {
      // What is taken already was taken in stretches at least this long: an overlap covers an end of this
      // one.
      if (taken[match.begin] || taken[match.end - 1]) continue;
      if (match.entry->strips_right) {
        while (match.end < text.size() && !taken[match.end] && is_space(text[match.end])) ++match.end;
      }
      std::fill(taken.begin() + static_cast<std::ptrdiff_t>(match.begin),
                taken.begin() + static_cast<std::ptrdiff_t>(match.end), true);
      matches.push_back(match);
    }
  }

  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) { return a.begin < b.begin; });
  std::vector<Fragment> out;
  std::size_t done = 0;
  for (const Match& match : matches) {
    if (match.begin > done) out.push_back({text.substr(done, match.begin - done)});
    out.push_back({text.substr(match.begin, match.end - match.begin), match.entry->id});
    done = match.end;
  }
  if (done < text.size()) out.push_back({text.substr(done)});
  return out;
}

}  // namespace mlxn::tokenizer
