#include <random>

#include "formats/utf8.h"
#include "gtest/gtest.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn::stream_decoder_suite {
namespace {

using testing::load_tokenizer;
using testing::VocabBuilder;

Tokenizer bytes_only() {
  VocabBuilder v;
  v.add("\xe2\x96\x81")
      .add(
          "\xe2\x96\x81"
          "a")
      .add("[x]", 0, TokenKind::user_defined);
  return load_tokenizer(v.gguf()).value();
}
TokenId byte(unsigned char b) { return 3 + b; }
constexpr TokenId kSpaceA = 260;

TEST(StreamDecoder, HoldsBackHalfACharacter) {
  StreamDecoder d(bytes_only());
  EXPECT_EQ(d.push(byte(0xf0)).value(), "");
  EXPECT_EQ(d.push(byte(0x9f)).value(), "");
  EXPECT_EQ(d.push(byte(0xa6)).value(), "");
  EXPECT_EQ(d.push(byte(0x99)).value(), "\xf0\x9f\xa6\x99");
  EXPECT_EQ(d.push(byte(0xc3)).value(), "");
  EXPECT_EQ(d.flush(), "\xc3");
  EXPECT_EQ(d.flush(), "");
}

TEST(StreamDecoder, PassesBytesThatCanNoLongerBecomeACharacter) {
  StreamDecoder d(bytes_only());
  EXPECT_EQ(d.push(byte(0x80)).value(), "\x80");
  EXPECT_EQ(d.push(byte(0xff)).value(), "\xff");
  EXPECT_EQ(d.push(byte(0xe2)).value(), "");
  EXPECT_EQ(d.push(byte('x')).value(), "\xe2x");
  EXPECT_EQ(d.push(byte(0xed)).value(), "");
  EXPECT_EQ(d.push(byte(0xa0)).value(), "\xed\xa0");  // would be a surrogate
  EXPECT_EQ(d.push(byte(0xe2)).value(), "");
  EXPECT_EQ(d.push(byte(0x96)).value(), "");
  EXPECT_EQ(d.push(byte(0xc3)).value(), "\xe2\x96");
  EXPECT_EQ(d.push(byte(0xa9)).value(), "\xc3\xa9");
}

TEST(StreamDecoder, DropsTheAddedSpaceOnce) {
  StreamDecoder d(bytes_only());
  EXPECT_EQ(d.push(1).value(), "");
  EXPECT_EQ(d.push(kSpaceA).value(), "a");
  EXPECT_EQ(d.push(kSpaceA).value(), " a");
  StreamDecoder later(bytes_only(), {.keep_special = false, .drop_added_space = false});
  EXPECT_EQ(later.push(kSpaceA).value(), " a");
}

TEST(StreamDecoder, PiecesTogetherAreTheWholeDecode) {
  const Tokenizer t = bytes_only();
  std::mt19937_64 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::vector<TokenId> ids;
    for (std::size_t n = random() % 12; n > 0; --n) {
      const unsigned char leads[] = {0xf0, 0x9f, 0xa6, 0x99, 0xc3, 0xa9, 'a', ' ', 0xff};
      ids.push_back(random() % 4 == 0 ? static_cast<TokenId>(random() % t.vocab_size())
                                      : byte(leads[random() % 9]));
    }
    const DecodeOptions options{.keep_special = random() % 2 == 0, .drop_added_space = random() % 2 == 0};
    const std::string whole = t.decode(ids, options).value();
    StreamDecoder d(t, options);
    std::string joined;
    for (const TokenId id : ids) {
      const std::string out = d.push(id).value();
      EXPECT_TRUE(is_utf8(out) || !is_utf8(whole));
      joined += out;
    }
    joined += d.flush();
    EXPECT_EQ(joined, whole);
  }
}

TEST(StreamDecoder, OfATokenizerThatWasMovedFromSaysSo) {
  Tokenizer t = bytes_only();
  const Tokenizer taken = std::move(t);
  StreamDecoder d(t);  // NOLINT: what is left is what this is about
  EXPECT_EQ(d.push(1).error().code(), ErrorCode::wrong_state);
  EXPECT_EQ(d.flush(), "");
}

TEST(StreamDecoder, AnIdOutsideChangesNothing) {
  StreamDecoder d(bytes_only());
  EXPECT_EQ(d.push(byte(0xc3)).value(), "");
  EXPECT_EQ(d.push(-1).error().code(), ErrorCode::out_of_range);
  EXPECT_EQ(d.push(byte(0xa9)).value(), "\xc3\xa9");
}

}  // namespace
}  // namespace mlxn::stream_decoder_suite
