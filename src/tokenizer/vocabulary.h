#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/tokenizer.h"

namespace mlxn::tokenizer {

/// Hash of the texts in a vocabulary, or of numbers that come from it. Seeded anew in each process, so that no file can be
/// made whose texts collide.
class TextHash {
 public:
  TextHash() noexcept;
  [[nodiscard]] std::uint64_t operator()(std::string_view text) const noexcept;
  [[nodiscard]] std::uint64_t operator()(std::uint64_t number) const noexcept { return mix(number ^ seed_) + seed_; }

 private:
  [[nodiscard]] static constexpr std::uint64_t mix(std::uint64_t h) noexcept {
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;  // a 64-bit finaliser found by search: every input bit reaches every output bit
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
  }
  std::uint64_t seed_;
};

/// The token tables of a model, checked (rule V15): texts, scores, kinds, and ids by text.
class Vocabulary {
 public:
  [[nodiscard]] static Result<Vocabulary> from_gguf(const GgufFile& file);

  [[nodiscard]] std::size_t size() const noexcept { return ends_.size(); }
  /// id must be inside, here and below.
  [[nodiscard]] std::string_view text(TokenId id) const noexcept {
    const auto i = static_cast<std::size_t>(id);
    const std::uint64_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(texts_).substr(begin, ends_[i] - begin);
  }
  [[nodiscard]] float score(TokenId id) const noexcept { return scores_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] TokenKind kind(TokenId id) const noexcept { return kinds_[static_cast<std::size_t>(id)]; }
  void set_kind(TokenId id, TokenKind kind) noexcept { kinds_[static_cast<std::size_t>(id)] = kind; }
  [[nodiscard]] std::optional<TokenId> find(std::string_view text) const noexcept;
  [[nodiscard]] std::size_t longest() const noexcept { return longest_; }

  /// The byte of a token of kind byte.
  [[nodiscard]] char byte_of(TokenId id) const noexcept;
  /// The token that stands for a byte, -1 if there is none.
  [[nodiscard]] TokenId byte_token(unsigned char byte) const noexcept { return byte_tokens_[byte]; }

 private:
  Result<void> read_scores(const GgufFile& file);
  Result<void> read_kinds(const GgufFile& file);
  Result<void> index_texts();
  Result<void> index_bytes();

  std::string texts_;
  std::vector<std::uint64_t> ends_;
  std::vector<float> scores_;
  std::vector<TokenKind> kinds_;
  std::size_t longest_ = 0;
  TextHash hash_;
  std::vector<TokenId> slots_;  // open addressing, a power of two, at most half full; -1 is free
  std::array<TokenId, 256> byte_tokens_ = {};
};

/// The byte that "<0xAB>" spells.
[[nodiscard]] std::optional<unsigned char> parse_byte_text(std::string_view text) noexcept;

}  // namespace mlxn::tokenizer
