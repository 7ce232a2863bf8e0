#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "formats/gguf/cursor.h"

namespace mlxn {

std::string_view to_string(TokenKind kind) noexcept {
  switch (kind) {
    case TokenKind::normal:
      return "normal";
    case TokenKind::unknown:
      return "unknown";
    case TokenKind::control:
      return "control";
    case TokenKind::user_defined:
      return "user defined";
    case TokenKind::unused:
      return "unused";
    case TokenKind::byte:
      return "byte";
  }
  return "no kind";
}

}  // namespace mlxn

namespace mlxn::tokenizer {
namespace {

using gguf::corrupt;

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::uint64_t kMaxVocabulary = std::uint64_t{1} << 24;

std::optional<unsigned> hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

std::uint64_t random_seed() noexcept {
  try {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
  } catch (...) {
    return 0x9e3779b97f4a7c15u;  // no entropy source: look-ups stay right, only the protection is gone
  }
}

/// Drawn once: asking the system takes longer than to encode a word.
std::uint64_t process_seed() noexcept {
  static const std::uint64_t seed = random_seed();
  return seed;
}

}  // namespace

TextHash::TextHash() noexcept : seed_(process_seed()) {}

std::uint64_t TextHash::operator()(std::string_view text) const noexcept {
  std::uint64_t h = mix(seed_ ^ text.size());
  while (text.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data(), 8);
    h = mix(h ^ word) + seed_;
    text.remove_prefix(8);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, text.data(), text.size());
  return mix(h ^ rest);
}

std::optional<unsigned char> parse_byte_text(std::string_view text) noexcept {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const auto high = hex_digit(text[3]), low = hex_digit(text[4]);
  if (!high || !low) return std::nullopt;
  return static_cast<unsigned char>(*high * 16 + *low);
}

Result<Vocabulary> Vocabulary::from_gguf(const GgufFile& file) {
  MLXN_TRY(const GgufStrings tokens, file.get_strings(kTokensKey));
  if (tokens.empty() || tokens.size() > kMaxVocabulary) {
    return corrupt("V15", "the vocabulary has {} tokens, wanted 1 to {}", tokens.size(), kMaxVocabulary);
  }
  Vocabulary out;
  out.ends_.reserve(tokens.size());
  for (const std::string_view token : tokens) {
    out.texts_ += token;
    out.ends_.push_back(out.texts_.size());
    out.longest_ = std::max(out.longest_, token.size());
  }
  MLXN_CHECK(out.read_scores(file));
  MLXN_CHECK(out.read_kinds(file));
  MLXN_CHECK(out.index_texts());
  MLXN_CHECK(out.index_bytes());
  return out;
}

Result<void> Vocabulary::read_scores(const GgufFile& file) {
  constexpr std::string_view key = "tokenizer.ggml.scores";
  scores_.assign(size(), 0.0f);
  if (file.find(key) == nullptr) return {};
  MLXN_TRY(const auto scores, file.get_array<float>(key));
  if (scores.size() < size()) {
    return corrupt("V15", "{} scores for {} tokens", scores.size(), size());
  }
  for (std::size_t i = 0; i < size(); ++i) {
    if (!std::isfinite(scores[i]))
      return corrupt("V15", "the score of token {} is {}, wanted a finite number", i, scores[i]);
    scores_[i] = scores[i];
  }
  return {};
}

Result<void> Vocabulary::read_kinds(const GgufFile& file) {
  kinds_.assign(size(), TokenKind::normal);
  const GgufValue* types = file.find("tokenizer.ggml.token_type");
  if (types == nullptr) return {};
  if (!types->is_array() || types->count() < size()) {
    return corrupt("V15", "{} token types for {} tokens", types->count(), size());
  }
  for (std::size_t i = 0; i < size(); ++i) {
    MLXN_TRY(const std::int64_t type, types->int_at(i));
    if (type < 1 || type > 6) return corrupt("V15", "the type of token {} is {}, wanted 1 to 6", i, type);
    kinds_[i] = static_cast<TokenKind>(type);
  }
  return {};
}

Result<void> Vocabulary::index_texts() {
  slots_.assign(std::bit_ceil(size() * 2), -1);
  for (std::size_t i = 0; i < size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view token = text(id);
    if (token.empty()) continue;  // padding entries of some vocabularies: nothing can spell them
    std::size_t slot = hash_(token) & (slots_.size() - 1);
    for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (text(slots_[slot]) == token) {
        return corrupt("V15", "tokens {} and {} have the same text", slots_[slot], id);
      }
    }
    slots_[slot] = id;
  }
  return {};
}

Result<void> Vocabulary::index_bytes() {
  byte_tokens_.fill(-1);
  for (std::size_t i = 0; i < size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (kind(id) != TokenKind::byte) continue;
    const auto byte = parse_byte_text(text(id));
    if (!byte) return corrupt("V15", "token {} is of kind byte, its text is not of the form <0xAB>", i);
    if (byte_tokens_[*byte] < 0) byte_tokens_[*byte] = id;
  }
  // A vocabulary without byte tokens may still have one-byte texts.
  for (unsigned b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    if (byte_tokens_[b] < 0) {
      const auto id = find({&c, 1});
      if (id && kind(*id) == TokenKind::normal) byte_tokens_[b] = *id;
    }
  }
  return {};
}

std::optional<TokenId> Vocabulary::find(std::string_view wanted) const noexcept {
  if (wanted.empty() || wanted.size() > longest_) return std::nullopt;
  for (std::size_t slot = hash_(wanted) & (slots_.size() - 1); slots_[slot] >= 0;
       slot = (slot + 1) & (slots_.size() - 1)) {
    if (text(slots_[slot]) == wanted) return slots_[slot];
  }
  return std::nullopt;
}

char Vocabulary::byte_of(TokenId id) const noexcept {
  return static_cast<char>(parse_byte_text(text(id)).value_or(0));
}

}  // namespace mlxn::tokenizer
