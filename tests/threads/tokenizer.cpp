// One Tokenizer, used by several threads at once.
#include <atomic>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn {
namespace {

using testing::BpeBuilder;
using testing::GgufBuilder;
using testing::load_tokenizer;
using testing::VocabBuilder;
using Ids = std::vector<TokenId>;

class TokenizerThreads : public ::testing::TestWithParam<const char*> {
 protected:
  static GgufBuilder file() {
    if (std::string_view(GetParam()) == "llama") {
      VocabBuilder v;
      v.add("\xe2\x96\x81", -10).add("a", -11).add("b", -12).add("ab", -1).add("\xe2\x96\x81" "ab", -2);
      return v.add("[x]", 0, TokenKind::user_defined).gguf();
    }
    BpeBuilder v;
    v.merge("a", "b").merge(" ", "ab").merge("ab", "ab").add("[x]", TokenKind::user_defined);
    return v.gguf("llama-bpe");
  }
  static std::vector<std::string> texts() {
    std::mt19937_64 random(3);
    std::vector<std::string> out;
    const char* words[] = {" ab", "abab", "a", "[x]", "</s>", "<|end|>", " \n", "12345", "\xe4\xb8\xad", "\xff", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (int i = 0; i < 50; ++i) {
      std::string text;
      for (std::size_t n = random() % 100; n > 0; --n) text += words[random() % std::size(words)];
      out.push_back(text);
    }
    return out;
  }
};

TEST_P(TokenizerThreads, GiveWhatOneAloneGives) {
  constexpr int kThreads = 4, kRounds = 5;
  const auto loaded = load_tokenizer(file());
  ASSERT_TRUE(loaded) << loaded.error().message();
  const Tokenizer& t = *loaded;
  const std::vector<std::string> inputs = texts();
  const EncodeOptions options{.add_bos = true, .add_eos = true, .parse_special = true};
  std::vector<Ids> ids;
  std::vector<std::string> decoded;
  for (const std::string& input : inputs) {
    ids.push_back(t.encode(input, options).value());
    decoded.push_back(t.decode(ids.back()).value());
  }

  std::atomic<int> waiting = kThreads, wrong = 0, checked = 0;
  const auto work = [&](std::size_t first) {
    --waiting;
    while (waiting > 0) std::this_thread::yield();  // all of them begin at once
    for (std::size_t n = 0; n < kRounds * inputs.size(); ++n) {
      const std::size_t i = (first + n) % inputs.size();
      const auto got = t.encode(inputs[i], options);
      const auto back = t.decode(ids[i]);
      if (!got || *got != ids[i] || !back || *back != decoded[i]) ++wrong;
      std::string streamed;
      StreamDecoder stream(t);
      for (const TokenId id : ids[i]) streamed += stream.push(id).value();
      if (streamed + stream.flush() != decoded[i]) ++wrong;
      ++checked;
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i * inputs.size() / kThreads);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(checked, kThreads * kRounds * static_cast<int>(inputs.size()));
}

/// The first tokenizers of a process may be loaded at once too: what they share is made then.
TEST_P(TokenizerThreads, LoadEachTheirOwn) {
  constexpr int kThreads = 4;
  const auto bytes = file().build();
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const auto parsed = GgufFile::parse(bytes);
      const auto t = Tokenizer::from_gguf(parsed.value());
      if (t && t->decode(t->encode("ab ab").value()).value() == "ab ab") ++good;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kThreads);
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerThreads, ::testing::Values("llama", "gpt2"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mlxn
