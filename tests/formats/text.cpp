#include <string>

#include "formats/printable.h"
#include "gtest/gtest.h"

namespace mlxn {
namespace {

/// The definition: a code point, encoded by the shortest form.
std::string encode(std::uint32_t c) {
  const auto byte = [](std::uint32_t b) { return static_cast<char>(b); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xc0 | c >> 6), byte(0x80 | (c & 63))};
  if (c < 0x10000) return {byte(0xe0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
  return {byte(0xf0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)),
          byte(0x80 | (c & 63))};
}

TEST(Utf8, EveryCodePointAndNothingElse) {
  for (std::uint32_t c = 0; c < 0x200000; ++c) {
    const bool is_character = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
    EXPECT_EQ(is_utf8(encode(c)), is_character) << c;
  }
  EXPECT_FALSE(is_utf8("\xc0\xaf"));          // overlong
  EXPECT_FALSE(is_utf8("\xe0\x9f\xbf"));      // overlong
  EXPECT_FALSE(is_utf8("\xf0\x8f\xbf\xbf"));  // overlong
}

TEST(Utf8, CutCharactersAreIncomplete) {
  for (const std::uint32_t c : {0xe9u, 0x20acu, 0x1f999u}) {
    const std::string whole = encode(c);
    for (std::size_t n = 1; n < whole.size(); ++n) {
      const Utf8Step step = utf8_step(std::string_view(whole).substr(0, n));
      EXPECT_EQ(step.kind, Utf8Step::Kind::incomplete);
      EXPECT_EQ(step.bytes, n);
    }
    EXPECT_EQ(utf8_step(whole).bytes, whole.size());
  }
}

TEST(Printable, SpellsOutWhatATerminalWouldObey) {
  EXPECT_EQ(printable("a \xc3\xa9 \xf0\x9f\xa6\x99"), "a \xc3\xa9 \xf0\x9f\xa6\x99");
  EXPECT_EQ(printable("\x1b[2J\n\x7f"), "\\x1b[2J\\x0a\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "2J\xc2\xa0"),
            "\\xc2\\x9b2J\xc2\xa0");
  EXPECT_EQ(printable("\xff\xe2\x82"), "\\xff\\xe2\\x82");
}

TEST(Excerpt, ShowsTheBeginning) {
  const std::string quote = "'", cut = "\xe2\x80\xa6'";
  EXPECT_EQ(excerpt(""), "''");
  EXPECT_EQ(excerpt("a\x1b"), "'a\\x1b'");
  EXPECT_EQ(excerpt(std::string(64, 'a')), quote + std::string(64, 'a') + quote);
  EXPECT_EQ(excerpt(std::string(65, 'a')), quote + std::string(64, 'a') + cut);
  EXPECT_EQ(excerpt(std::string(63, 'a') + "\xc3\xa9"), quote + std::string(63, 'a') + cut);  // no half character
  std::string broken = quote;
  for (int i = 0; i < 64; ++i) broken += "\\xff";
  EXPECT_EQ(excerpt(std::string(65, '\xff')), broken + cut);
}

}  // namespace
}  // namespace mlxn
