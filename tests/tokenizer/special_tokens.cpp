#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "tests/support/seconds.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn::special_tokens_suite {
namespace {

using testing::BpeBuilder;
using testing::GgufBuilder;
using testing::load_tokenizer;
using testing::VocabBuilder;
using Ids = std::vector<TokenId>;

constexpr EncodeOptions kPlain{.add_bos = false, .add_eos = false, .parse_special = false};
constexpr EncodeOptions kSpecial{.add_bos = false, .add_eos = false, .parse_special = true};

std::string repeat(std::string_view unit, std::size_t count) {
  std::string out;
  for (; count > 0; --count) out += unit;
  return out;
}

struct Name {
  std::string text;
  TokenId id;
  TokenKind kind;
};

/// The definition of the split, spelled out: one token after the other is cut out of what text is left.
std::vector<std::pair<std::string, TokenId>> split_plainly(const std::vector<Name>& names, const std::string& text,
                                                           bool controls, bool strips_right) {
  std::vector<std::pair<std::string, TokenId>> parts = {{text, -1}};
  for (const Name& name : names) {
    if (name.kind == TokenKind::control && !controls) continue;
    std::vector<std::pair<std::string, TokenId>> next;
    for (const auto& [part, part_id] : parts) {
      std::string rest = part;
      for (std::size_t at; part_id < 0 && (at = rest.find(name.text)) != std::string::npos;) {
        if (at > 0) next.emplace_back(rest.substr(0, at), -1);
        next.emplace_back("", name.id);
        rest = rest.substr(at + name.text.size());
        if (strips_right) rest = rest.substr(std::min(rest.size(), rest.find_first_not_of(' ')));
      }
      if (part_id >= 0 || !rest.empty()) next.emplace_back(rest, part_id);
    }
    parts = next;
  }
  return parts;
}

TEST(SpecialTokens, SplitAgreesWithItsDefinition) {
  constexpr TokenId kFirstByte = 3;
  std::mt19937_64 random(7);
  for (int round = 0; round < 1200; ++round) {
    const bool many = round % 2 == 0, phi = round % 3 == 0;
    const std::string letters = round % 5 == 0 ? "a" : "ab";  // names of one letter end each other
    const std::string alphabet = letters + (phi ? "c  " : "c");
    VocabBuilder v;
    std::vector<Name> names;
    for (int i = many ? 40 : 6; i > 0; --i) {
      std::string text;
      for (std::size_t n = 1 + random() % (many ? 14 : 4); n > 0; --n) text += letters[random() % letters.size()];
      if (std::find(v.texts.begin(), v.texts.end(), text) != v.texts.end()) continue;
      const TokenKind kind = random() % 3 == 0 ? TokenKind::control : TokenKind::user_defined;
      names.push_back({text, static_cast<TokenId>(v.texts.size()), kind});
      v.add(text, 0, kind);
    }
    std::stable_sort(names.begin(), names.end(), [](const Name& a, const Name& b) { return a.text.size() > b.text.size(); });
    std::string text;
    for (std::size_t n = random() % (many ? 200 : 40); n > 0; --n) {
      // Long runs of letters, else the long names are never there.
      text += random() % 8 == 0 ? alphabet[random() % alphabet.size()] : letters[random() % letters.size()];
    }
    GgufBuilder b = v.gguf();
    b.scalar("tokenizer.ggml.add_space_prefix", false);
    if (phi) b.text("general.name", "Phi-3");
    const auto t = load_tokenizer(b);
    ASSERT_TRUE(t) << t.error().message();
    for (const bool controls : {false, true}) {
      Ids wanted;
      for (const auto& [part, id] : split_plainly(names, text, controls, phi)) {
        if (id >= 0) wanted.push_back(id);
        // Letters that are tokens themselves never stay text, so that text is all bytes here.
        for (const char c : part) {
          for (const char d : c == ' ' ? std::string("\xe2\x96\x81") : std::string(1, c)) {
            wanted.push_back(kFirstByte + static_cast<unsigned char>(d));
          }
        }
      }
      const auto ids = t->encode(text, controls ? kSpecial : kPlain);
      ASSERT_TRUE(ids) << ids.error().message();
      EXPECT_EQ(*ids, wanted) << text << (controls ? " with" : " without") << " controls, round " << round;
    }
  }
}

TEST(SpecialTokens, AFragmentCostsLittle) {
  constexpr std::size_t kCount = 200'000;
  const auto bpe = load_tokenizer(BpeBuilder().gguf());
  const auto sentencepiece = load_tokenizer(VocabBuilder().gguf());
  ASSERT_TRUE(bpe && sentencepiece);
  const auto check = [&](const Tokenizer& t, std::string_view end) {
    const std::string text = repeat(fmt::format("a{}", end), kCount);
    const double time = test::seconds([&] {
      const auto ids = t.encode(text, kSpecial);
      ASSERT_TRUE(ids);
      EXPECT_EQ(std::count(ids->begin(), ids->end(), *t.find(end)), kCount);
    });
    EXPECT_LT(time, test::kSlowdown);  // 5 us each; an entropy source that is asked for each takes several times that
  };
  check(*bpe, "<|end|>");
  check(*sentencepiece, "</s>");
}

/// A vocabulary with the letter a as often as 1 to `count` times, each with `last` behind.
Tokenizer long_names(std::size_t count, std::string_view last) {
  VocabBuilder v;
  v.add("a");
  for (std::size_t n = 1; n <= count; ++n) {
    const std::string name = std::string(n, 'a') + std::string(last);
    if (name != "a") v.add(name, 0, TokenKind::user_defined);
  }
  auto t = load_tokenizer(v.gguf());
  EXPECT_TRUE(t) << t.error().message();
  return *t;
}

TEST(SpecialTokens, TimeDoesNotGrowWithTheirNumber) {
  constexpr std::size_t kBytes = 200'000;
  for (const std::string_view last : {"", "x"}) {
    const Tokenizer few = long_names(30, last), many = long_names(3000, last);
    for (const std::string& text : {std::string(kBytes, 'a'), repeat(std::string(2999, 'a') + "b", kBytes / 3000),
                                    repeat(std::string(1999, 'a') + "x", kBytes / 2000)}) {
      const auto time = [&](const Tokenizer& t) { return test::seconds([&] { EXPECT_TRUE(t.encode(text, kPlain)); }); };
      // A hundred times as many: a look at each of them takes a hundred times as long.
      EXPECT_LT(time(many), 12 * time(few)) << "names end in '" << last << "', the text starts " << text.substr(0, 2);
    }
  }
}

TEST(SpecialTokens, TimeGrowsWithTheText) {
  const Tokenizer t = long_names(300, "");
  const auto time = [&](std::size_t bytes) {
    const std::string text(bytes, 'a');
    return test::seconds([&] { EXPECT_EQ(t.encode(text, kPlain).value().size(), (bytes + 299) / 300); });
  };
  EXPECT_LT(time(800'000), 64 * time(800'000 / 16));  // sixteen times the text: 256 would be quadratic
}

TEST(SpecialTokens, LoadingIsLinearInTheirNumber) {
  VocabBuilder v;
  for (int i = 0; i < 1 << 17; ++i) v.add(fmt::format("<{}>", i), 0, TokenKind::control);
  const auto time = [&](std::string_view name) {
    const auto bytes = v.gguf().text("general.name", name).build();
    const auto file = GgufFile::parse(bytes);
    EXPECT_TRUE(file);
    return test::seconds([&] { EXPECT_TRUE(Tokenizer::from_gguf(*file)); });
  };
  EXPECT_LT(time("phi-3"), 3 * time("other"));  // only whether each takes spaces along is asked besides
}

TEST(SpecialTokens, ATrieTooLargeIsAnError) {
  const auto t = load_tokenizer(VocabBuilder().add(std::string((1u << 22) + 1, 'a'), 0, TokenKind::control).gguf());
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code(), ErrorCode::limit_exceeded);
}

TEST(Tokenizer, ErrorsAreShortHoweverLongTheText) {
  const std::string nasty = repeat("\x1b[2J\n", 1'000'000);
  BpeBuilder merges;
  merges.merges.push_back(nasty);
  const struct {
    ErrorCode code;
    GgufBuilder file;
  } cases[] = {{ErrorCode::unsupported, GgufBuilder().text("tokenizer.ggml.model", nasty)},
               {ErrorCode::unsupported, BpeBuilder().gguf(nasty)},
               {ErrorCode::corrupt_file, merges.gguf()}};
  for (const auto& c : cases) {
    const auto t = load_tokenizer(c.file);
    ASSERT_FALSE(t);
    EXPECT_EQ(t.error().code(), c.code);
    const std::string_view message = t.error().message();
    EXPECT_NE(message.find("'\\x1b[2J\\x0a"), std::string_view::npos) << message.substr(0, 200);
    EXPECT_LT(message.size(), 2000u);  // with the names of all rules
    EXPECT_EQ(message.find('\x1b'), std::string_view::npos);
  }
}

}  // namespace
}  // namespace mlxn::special_tokens_suite
