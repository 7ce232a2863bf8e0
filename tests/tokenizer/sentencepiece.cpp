#include <random>

#include "gtest/gtest.h"
#include "tests/support/seconds.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn::sentencepiece_suite {
namespace {

using testing::GgufBuilder;
using testing::load_tokenizer;
using testing::VocabBuilder;
using Ids = std::vector<TokenId>;

constexpr TokenId kUnknown = 0, kBos = 1, kEos = 2, kFirstByte = 3, kFirst = 259;  // in every VocabBuilder
constexpr EncodeOptions kPlain{.add_bos = false, .add_eos = false, .parse_special = false};
constexpr EncodeOptions kSpecial{.add_bos = false, .add_eos = false, .parse_special = true};

TokenId byte(unsigned char b) { return kFirstByte + b; }

/// Letters, a few words, the space.
VocabBuilder words() {
  VocabBuilder v;
  v.add("\xe2\x96\x81", -10).add("a", -11).add("b", -12).add("c", -13);  // 259 260 261 262
  v.add("ab", -1).add("bc", -2).add("abc", -3);                          // 263 264 265
  v.add(
       "\xe2\x96\x81"
       "a",
       -4)
      .add("\xe2\x96\x81\xe2\x96\x81", -5);  // 266 267
  return v;
}

Ids encode(const Tokenizer& t, std::string_view text, const EncodeOptions& options = kPlain) {
  const auto ids = t.encode(text, options);
  EXPECT_TRUE(ids) << ids.error().message();
  return ids ? *ids : Ids{};
}

TEST(SentencePiece, TheHighestScoreMergesFirst) {
  const auto t = load_tokenizer(words().gguf().scalar("tokenizer.ggml.add_space_prefix", false));
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_EQ(encode(*t, "ab"), (Ids{263}));
  EXPECT_EQ(encode(*t, "abc"), (Ids{265}));  // ab first, then abc
  EXPECT_EQ(encode(*t, "bbc"), (Ids{261, 264}));
  EXPECT_EQ(encode(*t, "  a"), (Ids{259, 266}));  // a with its space scores higher than two spaces
  EXPECT_EQ(encode(*t, "   "), (Ids{267, 259}));  // the leftmost of equals
  EXPECT_EQ(encode(*t, ""), (Ids{}));
}

TEST(SentencePiece, TheLeftmostOfEqualScoresMergesFirst) {
  VocabBuilder v;
  v.add("a", -1).add("aa", -2).add("aaa", -3);
  const auto t = load_tokenizer(v.gguf().scalar("tokenizer.ggml.add_space_prefix", false));
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "aaaaa"), (Ids{kFirst + 1, kFirst + 2}));  // aa aa a, then aa aaa
}

TEST(SentencePiece, UnknownCharactersBecomeBytes) {
  const auto t = load_tokenizer(words().gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "\xc3\xa9"), (Ids{259, byte(0xc3), byte(0xa9)}));
  EXPECT_EQ(encode(*t, "a\xff\x80z"), (Ids{266, byte(0xff), byte(0x80), byte('z')}));
  EXPECT_EQ(encode(*t, std::string_view("\0", 1)), (Ids{259, byte(0)}));
}

TEST(SentencePiece, WithoutByteTokensTheUnknownTokenStandsIn) {
  VocabBuilder v;
  v.texts = {"<unk>", "\xe2\x96\x81", "a"};
  v.scores = {0, 0, 0};
  v.types = {2, 1, 1};
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_EQ(encode(*t, "a\xc3\xa9"), (Ids{1, 2, kUnknown}));  // one for the whole character
  v.types = {1, 1, 1};
  const auto none = load_tokenizer(v.gguf().scalar<std::int32_t>("tokenizer.ggml.unknown_token_id", -1));
  ASSERT_TRUE(none);
  EXPECT_EQ(none->encode("z").error().code(), ErrorCode::not_found);
}

TEST(SentencePiece, SpacePrefix) {
  const auto with = load_tokenizer(words().gguf());
  const auto without = load_tokenizer(words().gguf().scalar("tokenizer.ggml.add_space_prefix", false));
  ASSERT_TRUE(with && without);
  EXPECT_EQ(encode(*with, "a"), (Ids{266}));
  EXPECT_EQ(encode(*with, " a"), (Ids{259, 266}));
  EXPECT_EQ(encode(*with, ""), (Ids{}));
  EXPECT_EQ(encode(*without, "a"), (Ids{260}));
  EXPECT_EQ(encode(*without, " a"), (Ids{266}));
  EXPECT_EQ(with->decode(Ids{266}).value(), "a");
  EXPECT_EQ(without->decode(Ids{266}).value(), " a");
  EXPECT_EQ(with->decode(Ids{266}, {.keep_special = false, .drop_added_space = false}).value(), " a");
  EXPECT_EQ(with->decode(Ids{kBos, 266, 266}).value(), "a a");
  EXPECT_EQ(with->piece(266).value(), " a");
}

TEST(SentencePiece, BeginAndEndOfSequence) {
  const auto t = load_tokenizer(words().gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(t->encode("a").value(), (Ids{kBos, 266}));
  EXPECT_EQ(t->encode("").value(), (Ids{kBos}));
  const auto other = load_tokenizer(words()
                                        .gguf()
                                        .scalar("tokenizer.ggml.add_bos_token", false)
                                        .scalar("tokenizer.ggml.add_eos_token", true));
  ASSERT_TRUE(other);
  EXPECT_EQ(other->encode("a").value(), (Ids{266, kEos}));
  EXPECT_FALSE(other->adds_bos());
  EXPECT_TRUE(other->adds_eos());
}

TEST(SentencePiece, ControlTokensOnlyWhereTheyAreAskedFor) {
  auto v = words();
  v.add("<", -20).add("s>", -20);  // with these, merges could spell <s>
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "<s>a", kSpecial), (Ids{kBos, 266}));
  EXPECT_EQ(encode(*t, "a<s>a<unk>", kSpecial), (Ids{266, kBos, 266, kUnknown}));
  const Ids plain = encode(*t, "<s>");
  EXPECT_EQ(std::count(plain.begin(), plain.end(), kBos), 0);
  EXPECT_EQ(t->decode(plain).value(), "<s>");
  EXPECT_EQ(t->decode(Ids{kBos, 266}, {.keep_special = true, .drop_added_space = true}).value(), "<s>a");
}

TEST(SentencePiece, ByteTokensCannotBeSpelled) {
  auto v = words();
  v.add("<0x4").add("1>").add("<").add("0").add("x").add("4").add("1").add(">").add("<0").add("<0x");
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(t->decode(encode(*t, "<0x41>")).value(), "<0x41>");
}

TEST(SentencePiece, UserDefinedTokensAlways) {
  auto v = words();
  v.add("[x]", 0, TokenKind::user_defined).add("[x][y]", 0, TokenKind::user_defined);
  const TokenId x = kFirst + 9, xy = x + 1;
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "a[x]a"), (Ids{266, x, 266}));  // the text after it gets a space as at the start
  EXPECT_EQ(encode(*t, "[x][x][y]"), (Ids{x, xy}));    // the longest wins, wherever it stands
  EXPECT_EQ(t->decode(encode(*t, "a[x]a[x][y] a")).value(), "a[x]a[x][y] a");
}

TEST(SentencePiece, SpecialTokensOfOneLengthGoByIdThenByPlace) {
  auto v = words();
  v.add("xyx", 0, TokenKind::user_defined).add("yxy", 0, TokenKind::user_defined);
  const TokenId xyx = kFirst + 9, yxy = xyx + 1;
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "yxyxyx"), (Ids{259, byte('y'), xyx, 259, byte('y'), byte('x')}));
  EXPECT_EQ(encode(*t, "yxy"), (Ids{yxy}));
  EXPECT_EQ(encode(*t, "xyxyx"), (Ids{xyx, 259, byte('y'), byte('x')}));
}

TEST(SentencePiece, Phi3TokensSwallowTheSpaceAfterThem) {
  auto v = words();
  v.add("<|user|>", 0, TokenKind::control);
  const TokenId user = kFirst + 9;
  const auto phi = load_tokenizer(v.gguf().text("general.name", "Phi-3-mini"));
  const auto other = load_tokenizer(v.gguf().text("general.name", "other"));
  ASSERT_TRUE(phi && other);
  EXPECT_EQ(encode(*phi, "<|user|> \na<s> a", kSpecial), (Ids{user, 266, kBos, 259, 266}));
  EXPECT_EQ(encode(*other, "<|user|> a", kSpecial), (Ids{user, 259, 266}));
}

TEST(SentencePiece, EndOfGeneration) {
  auto v = words();
  v.add("<|end|>", 0, TokenKind::user_defined).add("<|eom_id|>", 0, TokenKind::control);
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(t->eot(), kFirst + 9);
  EXPECT_EQ(t->kind(kFirst + 9), TokenKind::control);
  EXPECT_TRUE(t->is_end_of_generation(kEos));
  EXPECT_TRUE(t->is_end_of_generation(kFirst + 9));
  EXPECT_TRUE(t->is_end_of_generation(kFirst + 10));
  EXPECT_FALSE(t->is_end_of_generation(kBos));
  EXPECT_FALSE(t->is_end_of_generation(-1));
}

TEST(SentencePiece, AnyBytesComeBack) {
  const auto t = load_tokenizer(words().gguf());
  ASSERT_TRUE(t);
  std::mt19937_64 random(11);
  const std::string alphabet = std::string("abc  \n\xc3\xa9\xf0\x9f\xa6\x99\xff") + '\0';
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (std::size_t n = random() % 60; n > 0; --n) text += alphabet[random() % alphabet.size()];
    EXPECT_EQ(t->decode(encode(*t, text)).value(), text);
  }
}

/// The definition of the merges, spelled out for a text of ASCII and spaces.
Ids merge_plainly(const Tokenizer& t, const std::vector<float>& scores, std::string_view text) {
  std::vector<std::string> parts;
  for (const char c : text) parts.push_back(c == ' ' ? "\xe2\x96\x81" : std::string(1, c));
  while (true) {
    std::size_t best = parts.size();
    float score = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto id = t.find(parts[i] + parts[i + 1]);
      if (!id || (best < parts.size() && scores[static_cast<std::size_t>(*id)] <= score)) continue;
      best = i;
      score = scores[static_cast<std::size_t>(*id)];
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) {
    if (const auto id = t.find(part)) {
      ids.push_back(*id);
    } else {
      for (const char c : part) ids.push_back(byte(static_cast<unsigned char>(c)));
    }
  }
  return ids;
}

TEST(SentencePiece, AgreesWithItsDefinition) {
  std::mt19937_64 random(23);
  for (int round = 0; round < 200; ++round) {
    VocabBuilder v;
    std::vector<std::string> known = {"a", "b", "c", "\xe2\x96\x81"};
    for (const std::string& text : known) v.add(text, -100);
    for (std::size_t i = 0; i < 3 + random() % 20; ++i) {  // few tokens leave places that none reaches across
      const std::string text = known[random() % known.size()] + known[random() % known.size()];
      if (text.size() > 12 || std::find(known.begin(), known.end(), text) != known.end()) continue;
      known.push_back(text);
      v.add(text, static_cast<float>(random() % 8));
    }
    const auto t = load_tokenizer(v.gguf().scalar("tokenizer.ggml.add_space_prefix", false));
    ASSERT_TRUE(t);
    for (int n = 0; n < 20; ++n) {
      std::string text;
      for (std::size_t length = random() % 60; length > 0; --length) text += "abc d"[random() % 5];
      EXPECT_EQ(encode(*t, text), merge_plainly(*t, v.scores, text)) << text;
    }
  }
}

TEST(SentencePiece, ALongWordIsNotQuadratic) {
  VocabBuilder v;
  for (std::size_t n = 1; n <= 64; n *= 2) v.add(std::string(n, 'a'), static_cast<float>(n));
  v.add("aab", 5, TokenKind::user_defined).add("\n\n", 0, TokenKind::user_defined);
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  const auto time = [&](std::size_t n) {
    const std::string text(n, 'a');
    return test::seconds([&] { EXPECT_GE(encode(*t, text).size(), n / 64); });
  };
  EXPECT_LT(time(1u << 20), 64 * time(1u << 16));  // sixteen times the text: 256 would be quadratic
}

TEST(Vocabulary, TablesThatContradictEachOther) {
  const auto rule = [](const GgufBuilder& b) {
    const auto t = load_tokenizer(b);
    return t ? std::string("accepted") : std::string(t.error().rule());
  };
  auto v = words();
  v.scores.pop_back();
  EXPECT_EQ(rule(v.gguf()), "V15");
  v = words();
  v.types.pop_back();
  EXPECT_EQ(rule(v.gguf()), "V15");
  v = words();
  v.types[5] = 7;
  EXPECT_EQ(rule(v.gguf()), "V15");
  v = words();
  v.scores[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(rule(v.gguf()), "V15");
  EXPECT_EQ(rule(words().add("ab").gguf()), "V15");  // twice
  for (const char* bad : {"<0x4>", "<0x4G>", "<0x041>", "0x41", "", "<0x-1>", "<0xFF"}) {
    EXPECT_EQ(rule(words().add(bad, 0, TokenKind::byte).gguf()), "V15") << bad;
  }
  EXPECT_EQ(rule(words().add("").add("").gguf()), "accepted");  // padding entries
  EXPECT_EQ(rule(GgufBuilder().text("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {})),
            "V15");
  EXPECT_EQ(rule(words().gguf().text("tokenizer.ggml.bos_token_id", "1")), "V15");
}

TEST(Vocabulary, SpecialIdsOutsideAreLeftOut) {
  const auto t = load_tokenizer(words()
                                    .gguf()
                                    .scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 100'000)
                                    .scalar<std::uint64_t>("tokenizer.ggml.eos_token_id", ~std::uint64_t{0}));
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_FALSE(t->bos());
  EXPECT_EQ(t->notes().size(), 2u);
  EXPECT_EQ(encode(*t, "a", {}), (Ids{266}));
}

TEST(Vocabulary, OtherFamiliesAreNamed) {
  const auto code = [](std::string_view model) {
    return load_tokenizer(GgufBuilder().text("tokenizer.ggml.model", model)).error();
  };
  EXPECT_EQ(code("rwkv").code(), ErrorCode::unsupported);
  EXPECT_NE(code("rwkv").message().find("gpt2, llama"), std::string_view::npos);
  EXPECT_EQ(code("none").code(), ErrorCode::not_found);
  EXPECT_EQ(load_tokenizer(GgufBuilder()).error().code(), ErrorCode::not_found);
}

TEST(Tokenizer, OneThatWasMovedFromHasNothingAndSaysSo) {
  Tokenizer t = load_tokenizer(words().gguf()).value();
  EXPECT_TRUE(t.defined());
  const Tokenizer taken = std::move(t);
  const Tokenizer& none = t;  // NOLINT: what is left is what this is about
  EXPECT_FALSE(none.defined());
  EXPECT_EQ(none.encode("a").error().code(), ErrorCode::wrong_state);
  EXPECT_EQ(none.encode_parts({}).error().code(), ErrorCode::wrong_state);
  EXPECT_EQ(none.decode(Ids{1}).error().code(), ErrorCode::wrong_state);
  EXPECT_EQ(none.piece(1).error().code(), ErrorCode::wrong_state);
  EXPECT_TRUE(none.model().empty() && none.text(1).empty() && none.notes().empty());
  EXPECT_EQ(none.vocab_size(), 0u);
  EXPECT_FALSE(none.contains(0));
  EXPECT_EQ(none.kind(1), TokenKind::unused);
  EXPECT_FALSE(none.find("a") || none.bos() || none.eos() || none.eot() || none.unknown());
  EXPECT_FALSE(none.adds_bos() || none.adds_eos() || none.is_end_of_generation(2));
}

TEST(Vocabulary, ErrorsNameTheFile) {
  const auto said = [](const GgufBuilder& b) { return std::string(load_tokenizer(b).error().message()); };
  EXPECT_EQ(said(GgufBuilder()), "memory: there is no key 'tokenizer.ggml.model'");
  VocabBuilder bad = words();
  bad.add("odd", 0, static_cast<TokenKind>(7));
  EXPECT_EQ(said(bad.gguf()), "memory: gguf: the type of token 268 is 7, wanted 1 to 6");
}

TEST(Vocabulary, IdsOutsideAreErrors) {
  const auto t = load_tokenizer(words().gguf());
  ASSERT_TRUE(t);
  for (const TokenId bad : {-1, static_cast<TokenId>(t->vocab_size()), std::numeric_limits<TokenId>::max()}) {
    EXPECT_EQ(t->decode(Ids{bad}).error().code(), ErrorCode::out_of_range);
    EXPECT_EQ(t->text(bad), "");
    EXPECT_EQ(t->kind(bad), TokenKind::unused);
  }
  EXPECT_EQ(t->find("abc"), 265);
  EXPECT_FALSE(t->find("abcd"));
}

}  // namespace
}  // namespace mlxn::sentencepiece_suite
