#include <ctime>
#include <map>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "tests/support/seconds.h"
#include "tests/tokenizer/vocab_builder.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/split_rules.h"

namespace mlxn::bpe_suite {
namespace {

using testing::BpeBuilder;
using testing::load_tokenizer;
using Ids = std::vector<TokenId>;

constexpr TokenId kFirst = BpeBuilder::kFirst;
constexpr EncodeOptions kPlain{.add_bos = false, .add_eos = false, .parse_special = false};
constexpr EncodeOptions kSpecial{.add_bos = false, .add_eos = false, .parse_special = true};

Ids encode(const Tokenizer& t, std::string_view text, const EncodeOptions& options = kPlain) {
  const auto ids = t.encode(text, options);
  EXPECT_TRUE(ids) << ids.error().message();
  return ids ? *ids : Ids{};
}

std::vector<std::string> split(std::string_view rule, std::string_view text) {
  const auto splitter = tokenizer::PreTokenizer::make(*tokenizer::find_split_rule(rule));
  EXPECT_TRUE(splitter) << splitter.error().message();
  auto workspace = splitter->workspace();
  EXPECT_TRUE(workspace);
  std::vector<std::string> words;
  const auto done = splitter->split(text, *workspace, [&](std::string_view word) -> Result<void> {
    words.emplace_back(word);
    return {};
  });
  EXPECT_TRUE(done) << done.error().message();
  return words;
}
using Words = std::vector<std::string>;

TEST(BytePairs, TheFirstMergeOfTheListGoesFirst) {
  const auto t = load_tokenizer(BpeBuilder().merge("b", "c").merge("a", "b").merge("a", "bc").merge("ab", "c", false).gguf());
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_EQ(encode(*t, "ab"), (Ids{kFirst + 1}));
  EXPECT_EQ(encode(*t, "abc"), (Ids{kFirst + 2}));
  EXPECT_EQ(encode(*t, "abab"), (Ids{kFirst + 1, kFirst + 1}));
  EXPECT_EQ(encode(*t, ""), (Ids{}));
}

TEST(BytePairs, TheLeftmostOfEqualsGoesFirst) {
  const auto t = load_tokenizer(BpeBuilder().merge("a", "a").gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "aaa"), (Ids{kFirst, 'a'}));
}

TEST(BytePairs, OfAMergeNamedTwiceTheFirstPlaceCounts) {
  BpeBuilder v;
  v.merge("a", "b").merge("b", "c").merges.push_back("a b");
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "abc"), (Ids{kFirst, 'c'}));
}

TEST(BytePairs, WordsAreMergedApart) {
  const auto t = load_tokenizer(BpeBuilder().merge("a", " ").merge(" ", "a").gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "a a"), (Ids{'a', kFirst + 1}));
}

TEST(BytePairs, WhatIsNoTokenFallsBackToBytes) {
  const auto t = load_tokenizer(BpeBuilder().merge("a", "b", false).merge("ab", "c").merge("\xc3", "\xa9", false).gguf());
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_EQ(encode(*t, "ab"), (Ids{'a', 'b'}));
  EXPECT_EQ(encode(*t, "abc"), (Ids{kFirst}));  // by way of a text that is no token
  EXPECT_EQ(encode(*t, "\xc3\xa9"), (Ids{0xc3, 0xa9}));
  ASSERT_EQ(t->notes().size(), 1u);
  EXPECT_NE(t->notes()[0].find("2 texts"), std::string::npos) << t->notes()[0];
}

TEST(BytePairs, ABytesTokenMayBeMissing) {
  BpeBuilder v;
  v.texts[0xff] = "another";
  const auto none = load_tokenizer(v.gguf());
  ASSERT_TRUE(none);
  EXPECT_EQ(encode(*none, "a\xff z"), (Ids{'a', ' ', 'z'}));
  ASSERT_EQ(none->notes().size(), 1u);
  EXPECT_NE(none->notes()[0].find("1 bytes have no token"), std::string::npos);
  v.add("<0xFF>", TokenKind::byte);
  const auto byte = load_tokenizer(v.gguf());
  ASSERT_TRUE(byte) << byte.error().message();
  EXPECT_TRUE(byte->notes().empty());
  EXPECT_EQ(encode(*byte, "\xff"), (Ids{kFirst}));
  EXPECT_EQ(byte->decode(Ids{kFirst}).value(), "\xff");
}

TEST(BytePairs, TokensOfFillingInAreControlTokens) {
  BpeBuilder v;
  v.add("<|fim_prefix|>", TokenKind::user_defined).add("<|fim_pad|>", TokenKind::user_defined).add("<PRE>", TokenKind::user_defined);
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "<|fim_prefix|>").size(), 14u);
  EXPECT_EQ(encode(*t, "<|fim_prefix|>", kSpecial), (Ids{kFirst}));
  EXPECT_FALSE(t->is_end_of_generation(kFirst));
  EXPECT_TRUE(t->is_end_of_generation(kFirst + 1));
  EXPECT_EQ(encode(*t, "<PRE>"), (Ids{kFirst + 2}));  // another token has its place
  const auto told = load_tokenizer(v.gguf().scalar<std::uint32_t>("tokenizer.ggml.fim_pre_token_id", kFirst + 2));
  ASSERT_TRUE(told);
  EXPECT_EQ(encode(*told, "<|fim_prefix|>"), (Ids{kFirst}));
}

TEST(BytePairs, SomeRulesTakeWholeWordsWithoutMerges) {
  BpeBuilder v;
  v.merge("a", "b").add(BpeBuilder::letters(" abc")).add("<|pad|>", TokenKind::control);
  const auto with = load_tokenizer(v.gguf("gpt-2"));
  const auto without = load_tokenizer(v.gguf("llama-bpe"));
  ASSERT_TRUE(with && without);
  EXPECT_EQ(encode(*with, " abc"), (Ids{' ', kFirst, 'c'}));
  EXPECT_EQ(encode(*without, " abc"), (Ids{kFirst + 1}));
  EXPECT_EQ(encode(*without, " abcd"), (Ids{' ', kFirst, 'c', 'd'}));
}

TEST(BytePairs, ControlTokensOnlyWhereTheyAreAskedFor) {
  BpeBuilder v;
  v.merge("<", "|", false).merge("<|", "end", false).merge("e", "n", false).merge("en", "d", false);
  v.merge("<|end", "|>", false).merge("|", ">", false);
  for (const char* rule : {"gpt-2", "llama-bpe", "bloom"}) {  // the last one leaves <|end|> together but for |
    const auto t = load_tokenizer(v.gguf(rule));
    ASSERT_TRUE(t);
    const Ids plain = encode(*t, "<|end|>");
    EXPECT_EQ(std::count(plain.begin(), plain.end(), BpeBuilder::kEnd), 0);
    EXPECT_EQ(t->decode(plain).value(), "<|end|>");
    EXPECT_EQ(encode(*t, "a<|end|>b", kSpecial), (Ids{'a', BpeBuilder::kEnd, 'b'}));
  }
}

TEST(BytePairs, UserDefinedTokensAlways) {
  BpeBuilder v;
  v.add("    ", TokenKind::user_defined).add("\xe3\x80\x80", TokenKind::user_defined);
  v.add(BpeBuilder::letters(" x"), TokenKind::user_defined).merge(" ", "x", false);
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_EQ(encode(*t, "a    \xe3\x80\x80"), (Ids{'a', kFirst, kFirst + 1}));
  EXPECT_EQ(t->decode(Ids{'a', kFirst, kFirst + 1}).value(), "a    \xe3\x80\x80");
  EXPECT_EQ(t->decode(encode(*t, " x")).value(), " x");  // an entry that would not give the text back
}

TEST(BytePairs, BeginAndEndOfSequence) {
  const auto gpt = load_tokenizer(BpeBuilder().gguf("gpt-2"));
  const auto llama = load_tokenizer(BpeBuilder().gguf("llama-bpe"));
  const auto told = load_tokenizer(BpeBuilder()
                                       .gguf("gpt-2")
                                       .scalar("tokenizer.ggml.add_bos_token", true)
                                       .scalar("tokenizer.ggml.add_eos_token", true));
  ASSERT_TRUE(gpt && llama && told);
  EXPECT_EQ(gpt->encode("a").value(), (Ids{'a'}));
  EXPECT_EQ(llama->encode("a").value(), (Ids{BpeBuilder::kBegin, 'a'}));
  EXPECT_EQ(told->encode("a").value(), (Ids{BpeBuilder::kBegin, 'a', BpeBuilder::kEnd}));
}

TEST(BytePairs, WithoutKeysTheUsualIdsHold) {
  testing::GgufBuilder b;
  const BpeBuilder v;
  b.text("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", v.texts).strings("tokenizer.ggml.merges", {});
  const auto gpt = load_tokenizer(testing::GgufBuilder(b).text("tokenizer.ggml.pre", "gpt-2"));
  ASSERT_TRUE(gpt) << gpt.error().message();
  EXPECT_EQ(gpt->bos(), 11);
  EXPECT_EQ(gpt->eos(), 11);
  EXPECT_FALSE(gpt->unknown());
  const auto glm = load_tokenizer(b.text("tokenizer.ggml.pre", "glm4"));
  ASSERT_TRUE(glm);
  EXPECT_FALSE(glm->bos());
}

TEST(BytePairs, NoSpaceIsPutBefore) {
  const auto t = load_tokenizer(BpeBuilder().gguf().scalar("tokenizer.ggml.add_space_prefix", true));
  ASSERT_TRUE(t);
  EXPECT_EQ(encode(*t, "a"), (Ids{'a'}));
  EXPECT_EQ(t->decode(Ids{' ', 'a'}).value(), " a");
}

TEST(BytePairs, AFileWithoutARuleHasTheDefaultOne) {
  BpeBuilder v;
  v.merge("1", "2").merge("12", "3").merge("123", "4").merge(".", ".");
  const auto missing = load_tokenizer(v.gguf(""));
  const auto named = load_tokenizer(v.gguf("default"));
  ASSERT_TRUE(missing && named);
  for (const char* text : {"1234", "a..b 12345", "it's ... 99"}) EXPECT_EQ(encode(*missing, text), encode(*named, text));
  ASSERT_EQ(missing->notes().size(), 1u);
  EXPECT_NE(missing->notes()[0].find("tokenizer.ggml.pre"), std::string::npos);
  EXPECT_TRUE(named->notes().empty());
}

TEST(BytePairs, AnUnknownRuleIsAnErrorThatListsTheKnownOnes) {
  const auto t = load_tokenizer(BpeBuilder().gguf("no-such-rule\n"));
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code(), ErrorCode::unsupported);
  for (const char* name : {"'no-such-rule\\x0a'", "default", "gpt-2", "llama-bpe", "qwen2", "youtu"}) {
    EXPECT_NE(t.error().message().find(name), std::string_view::npos) << t.error().message();
  }
}

TEST(BytePairs, MergesThatMakeNoSense) {
  const auto error = [](std::vector<std::string> merges) {
    BpeBuilder v;
    v.merges = std::move(merges);
    const auto t = load_tokenizer(v.gguf());
    return t ? std::string("accepted") : std::string(t.error().rule());
  };
  for (const char* bad : {"", "a", "ab", "a ", " a", " ", "\xff"}) EXPECT_EQ(error({"a b", bad}), "V15") << bad;
  EXPECT_EQ(error({"a b", "no such", "  a", "a b c", "\xff \xfe"}), "accepted");  // texts that nothing can spell
  testing::GgufBuilder b;
  b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2").strings("tokenizer.ggml.tokens", {"a"});
  EXPECT_EQ(load_tokenizer(b).error().code(), ErrorCode::not_found);  // no merges at all
  b.array<std::int32_t>("tokenizer.ggml.merges", {1, 2});
  EXPECT_EQ(load_tokenizer(b).error().rule(), "V15");
  EXPECT_EQ(load_tokenizer(BpeBuilder().add("a").gguf()).error().rule(), "V15");  // a token twice
}

TEST(BytePairs, AnyBytesComeBack) {
  BpeBuilder v;
  v.merge("\xc3", "\xa9").merge(" ", "\xc3\xa9").merge("\xe4\xb8", "\xad").merge("\xe4", "\xb8").merge("\xff", "\xff").merge(" ", " ");
  std::mt19937_64 random(5);
  const std::string alphabet = std::string("aA1.' \n\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\xff\xe2\x80\xa8") + '\0';
  for (const char* rule : {"default", "gpt-2", "llama-bpe", "deepseek-llm", "tekken", "youtu"}) {
    const auto t = load_tokenizer(v.gguf(rule));
    ASSERT_TRUE(t);
    for (int round = 0; round < 500; ++round) {
      std::string text;
      for (std::size_t n = random() % 60; n > 0; --n) text += alphabet[random() % alphabet.size()];
      EXPECT_EQ(t->decode(encode(*t, text)).value(), text);
    }
  }
}

TEST(BytePairs, AStreamNeverGivesHalfACharacter) {
  const auto t = load_tokenizer(BpeBuilder().merge("\xf0\x9f", "\x98").merge("\xf0", "\x9f").gguf());
  ASSERT_TRUE(t);
  const Ids ids = encode(*t, "\xf0\x9f\x98\x80!");
  ASSERT_EQ(ids, (Ids{kFirst, 0x80, '!'}));
  StreamDecoder stream(*t);
  EXPECT_EQ(stream.push(ids[0]).value(), "");
  EXPECT_EQ(stream.push(ids[1]).value(), "\xf0\x9f\x98\x80");
  EXPECT_EQ(stream.push(ids[2]).value(), "!");
}

/// The definition of the merges, spelled out.
Ids merge_plainly(const BpeBuilder& v, std::string_view word) {
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t i = 0; i < v.merges.size(); ++i) {
    const std::size_t space = v.merges[i].find(' ', 1);
    ranks.try_emplace({v.merges[i].substr(0, space), v.merges[i].substr(space + 1)}, i);
  }
  std::vector<std::string> parts;
  for (const char c : word) parts.push_back(BpeBuilder::letters({&c, 1}));
  while (true) {
    std::size_t best = parts.size(), rank = ~std::size_t{0};
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end() && found->second < rank) best = i, rank = found->second;
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) {
    ids.push_back(static_cast<TokenId>(std::find(v.texts.begin(), v.texts.end(), part) - v.texts.begin()));
  }
  return ids;
}

TEST(BytePairs, AgreesWithItsDefinition) {
  std::mt19937_64 random(19);
  for (int round = 0; round < 60; ++round) {
    BpeBuilder v;
    std::vector<std::string> known = {"a", "b", "c"};
    for (int i = 0; i < 30; ++i) {
      const std::string left = known[random() % known.size()], right = known[random() % known.size()];
      if (left.size() + right.size() > 12 || std::find(known.begin(), known.end(), left + right) != known.end()) continue;
      known.push_back(left + right);
      v.merge(left, right);
    }
    std::shuffle(v.merges.begin(), v.merges.end(), random);
    const auto t = load_tokenizer(v.gguf());
    ASSERT_TRUE(t);
    for (const std::size_t length : {3, 10, 31, 32, 33, 70, 300}) {  // on both sides of where the method changes
      std::string word;
      for (std::size_t n = 0; n < length; ++n) word += static_cast<char>('a' + random() % 3);
      EXPECT_EQ(encode(*t, word), merge_plainly(v, word)) << word;
    }
  }
}

TEST(SplitRules, Gpt2) {
  EXPECT_EQ(split("gpt-2", "Don't  stop, it's 100% (fun)!\n\nOK "),
            (Words{"Don", "'t", " ", " stop", ",", " it", "'s", " 100", "%", " (", "fun", ")!", "\n", "\n", "OK", " "}));
  EXPECT_EQ(split("gpt-2", "IT'S"), (Words{"IT", "'", "S"}));
}

TEST(SplitRules, Llama3) {
  EXPECT_EQ(split("llama-bpe", "IT'S (fun) 12345 \r\n\n x"),
            (Words{"IT", "'S", " (", "fun", ")", " ", "123", "45", " \r\n\n", " x"}));
}

TEST(SplitRules, ABrokenByteIsASymbol) {
  EXPECT_EQ(split("gpt-2", "a\xff\xfe z\x80 \xe4\xb8"), (Words{"a", "\xff\xfe", " z", "\x80", " \xe4\xb8"}));
}

TEST(SplitRules, EveryRuleCompiles) {
  for (std::size_t i = 0; !tokenizer::split_rule_name(i).empty(); ++i) {
    const auto splitter = tokenizer::PreTokenizer::make(*tokenizer::find_split_rule(tokenizer::split_rule_name(i)));
    ASSERT_TRUE(splitter) << tokenizer::split_rule_name(i) << ": " << splitter.error().message();
  }
}

TEST(SplitRules, TimeGrowsWithTheText) {
  // Runs that some alternative of some rule begins to take and gives back.
  const std::string_view units[] = {" ", "\n", " \n", "\t ", "1", "a", "A", "aA", "!", "'", "\xe4\xb8\xad", "\xcc\x81", "\xe3\x80\x80", "a ", "\xff", "\r"};
  std::set<std::pair<const void*, const void*>> tried;  // many names share the patterns of one rule
  for (std::size_t i = 0; !tokenizer::split_rule_name(i).empty(); ++i) {
    const std::string_view name = tokenizer::split_rule_name(i);
    const tokenizer::SplitRule& rule = *tokenizer::find_split_rule(name);
    if (!tried.insert({rule.steps.data(), rule.sets.data()}).second) continue;
    const auto splitter = tokenizer::PreTokenizer::make(rule);
    ASSERT_TRUE(splitter);
    auto workspace = splitter->workspace();
    ASSERT_TRUE(workspace);
    for (const std::string_view unit : units) {
      const auto time = [&](std::size_t count) {
        std::string text;
        for (std::size_t n = 0; n < count; ++n) text += unit;
        text += 'x';
        const std::clock_t start = std::clock();
        const auto done = splitter->split(text, *workspace, [](std::string_view) -> Result<void> { return {}; });
        EXPECT_TRUE(done) << name << ": " << done.error().message();
        return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      };
      // A quadratic rule takes minutes here, a linear one milliseconds.
      EXPECT_LT(time(1u << 17), test::kSlowdown) << name << " on " << BpeBuilder::letters(unit);
    }
  }
}

TEST(BytePairs, ALongWordIsNotQuadratic) {
  BpeBuilder v;
  for (std::size_t n = 1; n < 64; n *= 2) v.merge(std::string(n, 'a'), std::string(n, 'a'));
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  const auto time = [&](std::size_t n) {
    const std::string text(n, 'a');
    return test::seconds([&] { EXPECT_GE(encode(*t, text).size(), n / 64); });
  };
  EXPECT_LT(time(1u << 20), 64 * time(1u << 16));  // sixteen times the text: 256 would be quadratic
}

TEST(BytePairs, RepeatedWordsKeepTheirTokens) {
  BpeBuilder v;
  v.merge("a", "b").merge(" ", "ab");
  const auto t = load_tokenizer(v.gguf());
  ASSERT_TRUE(t);
  std::string text;
  Ids wanted;
  for (int i = 0; i < 20'000; ++i) {  // more different words than are remembered
    const std::string word = " ab" + std::to_string(i % 17'000);
    text += word;
    wanted.push_back(kFirst + 1);
    for (const char c : word.substr(3)) wanted.push_back(c);
  }
  EXPECT_EQ(encode(*t, text), wanted);
}

}  // namespace
}  // namespace mlxn::bpe_suite
