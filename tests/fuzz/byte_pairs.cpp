#include <algorithm>
#include <vector>

#include "tests/fuzz/byte_reader.h"
#include "tests/fuzz/check_stream.h"
#include "tests/fuzz/targets.h"
#include "tests/tokenizer/vocab_builder.h"
#include "tokenizer/split_rules.h"

namespace mlxn::fuzz {
namespace {

/// Layout: flags (1 byte), number of the splitting rule (1), number of merges (1), the merges (two bytes: numbers of
/// texts known so far, the 256 bytes first), number of further tokens (1), those (a byte of text length, low 5 bits, and
/// kind, high 3 bits; the text), then the text to encode.
struct BytePairInput {
  bool with_tokens, unique, raw;
  testing::BpeBuilder vocabulary;
  std::string rule, text;

  explicit BytePairInput(std::span<const std::uint8_t> input) {
    ByteReader rest(input);
    const unsigned flags = rest.next();
    with_tokens = (flags & 1) == 0;  // merges make tokens
    unique = (flags & 2) == 0;       // leaves doubled entries out, which would be refused
    raw = (flags & 4) != 0;          // merges are lines of any bytes, which may be refused
    rule = tokenizer::split_rule_name(rest.next() % rules());
    std::vector<std::string> known;
    for (unsigned b = 0; b < 256; ++b) known.push_back({static_cast<char>(b)});
    for (unsigned n = rest.next(); n > 0 && rest.left() > 0; --n) {
      if (raw) {
        vocabulary.merges.push_back(rest.take(rest.next() & 15));
        continue;
      }
      const std::string left = known[rest.next() % known.size()], right = known[rest.next() % known.size()];
      if (left.size() + right.size() > 64) continue;
      known.push_back(left + right);
      vocabulary.merge(left, right, with_tokens && !has(testing::BpeBuilder::letters(left + right)));
      // The newest texts are within reach of one byte.
      if (known.size() > 256) std::swap(known[known.size() - 257], known.back());
    }
    for (unsigned n = rest.next(); n > 0 && rest.left() > 0; --n) {
      const unsigned head = rest.next();
      const std::string entry = rest.take(head & 31);
      if (unique && has(entry)) continue;
      vocabulary.add(entry, static_cast<TokenKind>(1 + head / 32 % (unique ? 5 : 7)));
    }
    text = rest.take(rest.left());
  }

 private:
  static std::size_t rules() {
    std::size_t count = 0;
    while (!tokenizer::split_rule_name(count).empty()) ++count;
    return count;
  }
  [[nodiscard]] bool has(const std::string& entry) const {
    return std::find(vocabulary.texts.begin(), vocabulary.texts.end(), entry) != vocabulary.texts.end();
  }
};

}  // namespace

std::string check_byte_pairs(std::span<const std::uint8_t> input) {
  const BytePairInput in(input);
  const auto t = testing::load_tokenizer(in.vocabulary.gguf(in.rule));
  if (!t) {
    if (in.unique && !in.raw) return "a good vocabulary is refused: " + std::string(t.error().message());
    return t.error().rule() == "V15" ? "" : "no rule: " + std::string(t.error().message());
  }
  for (const bool special : {false, true}) {
    const auto ids = t->encode(in.text, {.add_bos = false, .add_eos = false, .parse_special = special});
    if (!ids) return std::string(ids.error().message());
    for (const TokenId id : *ids) {
      if (!t->contains(id)) return "an id outside the vocabulary";
      if (!special && t->kind(id) == TokenKind::control) return "plain text became a control token";
    }
    for (const bool keep : {false, true}) {
      if (std::string broken = check_stream(*t, *ids, {.keep_special = keep}); !broken.empty()) return broken;
    }
    if (t->decode(*ids, {.keep_special = true}).value() != in.text) return "the text does not come back";
  }
  return {};
}

}  // namespace mlxn::fuzz

MLXN_FUZZ_ENTRY(mlxn::fuzz::check_byte_pairs)
