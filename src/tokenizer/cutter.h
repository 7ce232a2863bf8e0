#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/utf8.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

namespace mlxn::tokenizer {

/// Finds the places in a text that no token of a vocabulary can reach across, because it holds no two characters that
/// stand there side by side. What lies between two such places can be encoded by itself, and most of it is a word.
class Cutter {
 public:
  Cutter() : pairs_(kBits / 64) {}
  /// Adds the pairs of characters in a token.
  void learn(std::string_view token) {
    std::uint32_t left = kNone;
    while (!token.empty()) {
      const std::uint32_t right = take(token);
      if (left != kNone) pairs_[bit(left, right) / 64] |= std::uint64_t{1} << (bit(left, right) % 64);
      left = right;
    }
  }
  /// The first part of a text (not empty), up to such a place.
  [[nodiscard]] std::string_view first_part(std::string_view text) const noexcept {
    std::string_view rest = text;
    std::uint32_t left = take(rest);
    while (!rest.empty()) {
      std::string_view after = rest;
      const std::uint32_t right = take(after);
      if ((pairs_[bit(left, right) / 64] >> (bit(left, right) % 64) & 1) == 0) break;
      left = right;
      rest = after;
    }
    return text.substr(0, text.size() - rest.size());
  }

 private:
  // Pairs that share a bit only cost a cut.
  static constexpr std::size_t kBits = std::size_t{1} << 20;
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  static constexpr std::uint32_t kInvalid = 0x110000;  // and the byte

  static std::uint32_t take(std::string_view& text) noexcept {
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) {
      text.remove_prefix(1);
      return lead;
    }
    const Utf8Step step = utf8_step(text);
    const bool whole = step.kind == Utf8Step::Kind::whole;
    const std::size_t bytes = whole ? step.bytes : 1;
    const std::uint32_t character = whole ? code_point_of(text.substr(0, bytes)) : kInvalid + lead;
    text.remove_prefix(bytes);
    return character;
  }
  static std::size_t bit(std::uint32_t left, std::uint32_t right) noexcept {
    return static_cast<std::size_t>((std::uint64_t{left} << 32 | right) * 0x9e3779b97f4a7c15u >> 44);
  }
  std::vector<std::uint64_t> pairs_;
};

}  // namespace mlxn::tokenizer
