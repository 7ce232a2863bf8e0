#include "tokenizer/sentencepiece.h"

#include <algorithm>
#include <deque>
#include <queue>

#include "base/error.h"
#include "formats/utf8.h"
#include "tokenizer/word_cache.h"

namespace mlxn::tokenizer {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, how the vocabulary writes a space
constexpr std::uint32_t kNone = ~std::uint32_t{0};

std::string escape_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (const char c : text) {
    if (c == ' ') {
      out += kSpace;
    } else {
      out += c;
    }
  }
  return out;
}

/// Bytes of the first character of `text`. A byte that belongs to no valid one stands alone, so that it takes
/// no space or letter after it along.
std::uint32_t character_bytes(std::string_view text) noexcept {
  const Utf8Step step = utf8_step(text);
  return step.kind == Utf8Step::Kind::whole ? static_cast<std::uint32_t>(step.bytes) : 1;
}

/// A stretch of the text in a chain; length 0 once it was merged into its left neighbour.
struct Symbol {
  std::uint32_t begin, length, previous, next;
};

struct Merge {
  float score;
  std::uint32_t left, right, length;
  /// Order of a priority queue: the greatest is done first.
  bool operator<(const Merge& other) const noexcept {
    return score != other.score ? score < other.score : left > other.left;
  }
};

/// The token that plain text can become: control tokens and byte tokens cannot be spelled.
std::optional<TokenId> plain_token(const Vocabulary& vocabulary, std::string_view text) noexcept {
  const auto id = vocabulary.find(text);
  if (!id) return std::nullopt;
  switch (vocabulary.kind(*id)) {
    case TokenKind::normal:
    case TokenKind::user_defined:
    case TokenKind::unused:
      return id;
    case TokenKind::unknown:
    case TokenKind::control:
    case TokenKind::byte:
      return std::nullopt;
  }
  return std::nullopt;
}

class Merger {
 public:
  explicit Merger(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  void start(std::string_view text) {
    text_ = text;
    symbols_.clear();
    for (std::uint32_t at = 0; at < text.size();) {
      const auto left = static_cast<std::uint32_t>(text.size() - at);
      const std::uint32_t length = character_bytes(text.substr(at));
      const auto index = static_cast<std::uint32_t>(symbols_.size());
      symbols_.push_back({at, length, index == 0 ? kNone : index - 1, length == left ? kNone : index + 1});
      at += length;
    }
    for (std::uint32_t i = 1; i < symbols_.size(); ++i) propose(i - 1, i);
  }

  void run() {
    while (!queue_.empty()) {
      const Merge merge = queue_.top();
      queue_.pop();
      Symbol& left = symbols_[merge.left];
      Symbol& right = symbols_[merge.right];
      // A neighbour was merged since this was proposed.
      if (left.length == 0 || right.length == 0 || left.length + right.length != merge.length) continue;
      left.length += right.length;
      right.length = 0;
      left.next = right.next;
      if (right.next != kNone) symbols_[right.next].previous = merge.left;
      propose(left.previous, merge.left);
      propose(merge.left, left.next);
    }
  }

  /// f(text) for each symbol that is left; stops at the first error.
  template <class F>
  Result<void> for_each(F&& f) const {
    for (std::uint32_t i = symbols_.empty() ? kNone : 0; i != kNone; i = symbols_[i].next) {
      MLXN_CHECK(f(text_.substr(symbols_[i].begin, symbols_[i].length)));
    }
    return {};
  }

 private:
  void propose(std::uint32_t left, std::uint32_t right) {
    if (left == kNone || right == kNone) return;
    const std::uint32_t length = symbols_[left].length + symbols_[right].length;
    const auto id = plain_token(vocabulary_, text_.substr(symbols_[left].begin, length));
    if (id) queue_.push({vocabulary_.score(*id), left, right, length});
  }

  const Vocabulary& vocabulary_;
  std::string_view text_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Merge> queue_;
};

}  // namespace

SentencePiece::SentencePiece(const Vocabulary& vocabulary, std::optional<TokenId> unknown) : unknown_(unknown) {
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const std::string_view text = vocabulary.text(static_cast<TokenId>(i));
    if (plain_token(vocabulary, text)) cutter_.learn(text);
  }
}

class SentencePiece::TextEncoder final : public Encoder {
 public:
  TextEncoder(const SentencePiece& family, const Vocabulary& vocabulary, std::size_t text_bytes, std::vector<TokenId>& out)
      : family_(family), vocabulary_(vocabulary), out_(out), cache_(text_bytes, out), merger_(vocabulary) {}

  Result<void> append(std::string_view fragment) override {
    escaped_.push_back(escape_spaces(fragment));
    for (std::string_view rest = escaped_.back(); !rest.empty();) {
      const std::string_view part = family_.cutter_.first_part(rest);
      MLXN_CHECK(cache_.append(part, [&] {
        merger_.start(part);
        merger_.run();
        return merger_.for_each([this](std::string_view symbol) { return append_symbol(symbol); });
      }));
      rest.remove_prefix(part.size());
    }
    return {};
  }

 private:
  Result<void> append_symbol(std::string_view symbol) {
    if (const auto id = plain_token(vocabulary_, symbol)) {
      out_.push_back(*id);
      return {};
    }
    const auto missing = std::find_if(symbol.begin(), symbol.end(), [&](char c) {
      return vocabulary_.byte_token(static_cast<unsigned char>(c)) < 0;
    });
    if (missing == symbol.end()) {
      for (const char c : symbol) out_.push_back(vocabulary_.byte_token(static_cast<unsigned char>(c)));
      return {};
    }
    if (!family_.unknown_) {
      return make_error(ErrorCode::not_found,
                        "tokenizer: byte {:#04x} has no token, and there is no unknown token",
                        static_cast<unsigned char>(*missing));
    }
    out_.push_back(*family_.unknown_);
    return {};
  }

  const SentencePiece& family_;
  const Vocabulary& vocabulary_;
  std::vector<TokenId>& out_;
  std::deque<std::string> escaped_;  // all fragments so far: the cache's words are parts of them
  WordCache cache_;
  Merger merger_;
};

Result<std::unique_ptr<Encoder>> SentencePiece::encoder(const Vocabulary& vocabulary, std::size_t text_bytes,
                                                        std::vector<TokenId>& out) const {
  return std::unique_ptr<Encoder>(std::make_unique<TextEncoder>(*this, vocabulary, text_bytes, out));
}

void SentencePiece::append_piece(const Vocabulary& vocabulary, TokenId id, std::string& out) const {
  if (vocabulary.kind(id) == TokenKind::byte) {
    out += vocabulary.byte_of(id);
    return;
  }
  std::string_view text = vocabulary.text(id);
  for (std::size_t at = text.find(kSpace); at != std::string_view::npos; at = text.find(kSpace)) {
    out += text.substr(0, at);
    out += ' ';
    text.remove_prefix(at + kSpace.size());
  }
  out += text;
}

}  // namespace mlxn::tokenizer
