#include "mlxn/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "tests/fuzz/byte_reader.h"
#include "tests/fuzz/check_stream.h"
#include "tests/fuzz/targets.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn::fuzz {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";

/// Layout: flags (1 byte), number of tokens (1 byte), the tokens (a byte of text length, low 5 bits, and
/// kind, high 3 bits; a signed byte of score; the text), then the text to encode.
struct VocabularyInput {
  bool complete, unique, adds_space;
  testing::VocabBuilder vocabulary;
  std::string text;

  explicit VocabularyInput(std::span<const std::uint8_t> input) : rest(input) {
    const unsigned flags = rest.next();
    complete = (flags & 1) == 0;  // with byte tokens and a space
    unique = (flags & 2) == 0;    // leaves doubled texts out, which would be refused
    adds_space = (flags & 4) == 0;
    if (!complete) vocabulary.texts.clear(), vocabulary.scores.clear(), vocabulary.types.clear();
    if (complete) vocabulary.add(kSpace, -1);
    for (unsigned n = rest.next(); n > 0 && rest.left() > 0; --n) {
      const unsigned head = rest.next();
      const auto score = static_cast<std::int8_t>(rest.next());
      const std::string token = rest.take(head & 31);
      const auto& texts = vocabulary.texts;
      if (unique && std::find(texts.begin(), texts.end(), token) != texts.end()) continue;
      // Byte tokens and kinds that do not exist are for vocabularies that may be refused.
      vocabulary.add(token, score, static_cast<TokenKind>(1 + head / 32 % (unique ? 5 : 7)));
    }
    text = rest.take(rest.left());
  }

 private:
  ByteReader rest;
};

}  // namespace

std::string check_tokenizer(std::span<const std::uint8_t> input) {
  const VocabularyInput in(input);
  const auto t =
      testing::load_tokenizer(in.vocabulary.gguf().scalar("tokenizer.ggml.add_space_prefix", in.adds_space));
  if (!t) {
    if (in.unique && in.complete) return "a good vocabulary is refused: " + std::string(t.error().message());
    return t.error().rule() == "V15" ? "" : "no rule: " + std::string(t.error().message());
  }
  for (const bool special : {false, true}) {
    const auto ids = t->encode(in.text, {.add_bos = false, .add_eos = false, .parse_special = special});
    if (!ids) {
      if (in.complete || ids.error().code() != ErrorCode::not_found)
        return std::string(ids.error().message());
      continue;
    }
    for (const TokenId id : *ids) {
      if (!t->contains(id)) return "an id outside the vocabulary";
      if (in.complete && !special && t->kind(id) == TokenKind::control)
        return "plain text became a control token";
    }
    for (const bool keep : {false, true}) {
      for (const bool drop : {false, true}) {
        if (std::string broken = check_stream(*t, *ids, {keep, drop}); !broken.empty()) return broken;
      }
    }
    if (in.complete && in.text.find(kSpace) == std::string::npos) {
      if (t->decode(*ids, {.keep_special = true, .drop_added_space = true}).value() != in.text) {
        return "the text does not come back";
      }
    }
  }
  return {};
}

}  // namespace mlxn::fuzz

MLXN_FUZZ_ENTRY(mlxn::fuzz::check_tokenizer)
