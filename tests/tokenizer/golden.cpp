// Token ids as other implementations give them.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "gtest/gtest.h"
#include "mlxn/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tests/support/crc32.h"
#include "tests/support/source_dir.h"
#include "tests/tokenizer/vocab_builder.h"
#include "tokenizer/split_rules.h"

namespace mlxn::golden_suite {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> out;
  std::size_t begin = 0;
  for (std::size_t at; (at = text.find(separator, begin)) != std::string::npos;
       begin = at + separator.size()) {
    out.push_back(text.substr(begin, at - begin));
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

/// Text as SentencePiece can give it back: U+2581 has become a space.
std::string spaces(const std::string& text) {
  std::string out;
  for (const std::string& part : split(text + "\xe2\x96\x81", "\xe2\x96\x81")) out += part + ' ';
  out.pop_back();
  return out;
}

struct Published {
  const char* name;
  std::size_t tokens;
  bool adds_space;
};
class PublishedVocabulary : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedVocabulary, GivesItsIds) {
  const char* folder = std::getenv("MLXN_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "MLXN_TEST_DATA is not set";
  const std::string base = std::string(folder) + "/ggml-vocab-" + GetParam().name + ".gguf";
  if (!std::filesystem::exists(base)) GTEST_SKIP() << base << " is not there";
  const auto file = GgufFile::open(base);
  ASSERT_TRUE(file) << file.error().message();
  const auto tokenizer = Tokenizer::from_gguf(*file);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), GetParam().tokens);

  const auto inputs = split(read_file(base + ".inp"), "\n__ggml_vocab_test__\n");
  const auto outputs = split(read_file(base + ".out"), "\n");
  ASSERT_EQ(inputs.size(), outputs.size());
  ASSERT_GT(inputs.size(), 30u);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::vector<TokenId> wanted;
    std::istringstream numbers(outputs[i]);
    for (TokenId id = 0; numbers >> id;) wanted.push_back(id);
    const auto ids =
        tokenizer->encode(inputs[i], {.add_bos = false, .add_eos = false, .parse_special = false});
    ASSERT_TRUE(ids) << ids.error().message();
    EXPECT_EQ(*ids, wanted) << "text " << i << ": " << inputs[i];
    EXPECT_EQ(tokenizer->decode(*ids).value(), inputs[i]);
    const std::string with_space = inputs[i].empty() || !GetParam().adds_space ? inputs[i] : " " + inputs[i];
    EXPECT_EQ(tokenizer->decode(*ids, {.keep_special = false, .drop_added_space = false}).value(),
              with_space);
  }
}

INSTANTIATE_TEST_SUITE_P(TokenizerGolden, PublishedVocabulary,
                         ::testing::Values(Published{"llama-spm", 32000, true}, Published{"gpt-2", 50257, false},
                                           Published{"deepseek-coder", 32256, false}, Published{"falcon", 65024, false}),
                         [](const auto& test) {
                           std::string name = test.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// Every splitting rule, by what its tokens are for a vocabulary whose merges reach across all places where rules cut.
TEST(TokenizerGolden, SplitRules) {
  const nlohmann::json golden =
      nlohmann::json::parse(read_file(std::filesystem::path(test::source_dir()) / "tests/golden/tokenizer/rules.json"));
  testing::BpeBuilder vocabulary;
  vocabulary.texts.resize(256);  // of the file's tokens, bytes are the first ones too
  vocabulary.types.resize(256);
  for (const auto& line : golden["merges"]) {
    const auto merge = line.get<std::string>();
    const std::size_t space = merge.find(' ');
    const std::string entry = merge.substr(0, space) + merge.substr(space + 1);
    vocabulary.merges.push_back(merge);
    const bool known = std::find(vocabulary.texts.begin(), vocabulary.texts.end(), entry) != vocabulary.texts.end();
    if (!known) vocabulary.add(entry);
  }
  for (const auto& entry : golden["extra_tokens"]) vocabulary.add(entry.get<std::string>());
  const auto texts = golden["texts"].get<std::vector<std::string>>();

  std::set<std::string> names;
  for (const auto& row : golden["rules"]) {
    const auto hashes = row["crc32"].get<std::string>();
    ASSERT_EQ(hashes.size(), 8 * texts.size());
    for (const auto& name : row["names"]) {
      SCOPED_TRACE(name.get<std::string>());
      names.insert(name.get<std::string>());
      const auto tokenizer = testing::load_tokenizer(vocabulary.gguf(name.get<std::string>()));
      ASSERT_TRUE(tokenizer) << tokenizer.error().message();
      EXPECT_EQ(tokenizer->adds_bos(), row["adds_bos"].get<bool>());
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto ids = tokenizer->encode(texts[i], {.add_bos = false, .add_eos = false, .parse_special = false});
        ASSERT_TRUE(ids) << ids.error().message();
        const auto hash = fmt::format("{:08x}", test::crc32(std::as_bytes(std::span(*ids))));
        EXPECT_EQ(hash, hashes.substr(8 * i, 8)) << "text " << i << ": " << texts[i];
        EXPECT_EQ(tokenizer->decode(*ids).value(), texts[i]);
      }
    }
  }
  for (std::size_t i = 0; !tokenizer::split_rule_name(i).empty(); ++i) {
    EXPECT_EQ(names.count(std::string(tokenizer::split_rule_name(i))), 1u) << tokenizer::split_rule_name(i);
  }
}

TEST(TokenizerGolden, DemoModel) {
  const std::filesystem::path root = test::source_dir();
  const auto path = root / "tests/golden/demo/tokenize.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  const nlohmann::json golden = nlohmann::json::parse(read_file(path));
  const auto file = GgufFile::open(root / "data/demo" / golden["file"].get<std::string>());
  ASSERT_TRUE(file) << file.error().message();
  const auto tokenizer = Tokenizer::from_gguf(*file);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  ASSERT_FALSE(golden["cases"].empty());
  for (const auto& one : golden["cases"]) {
    const auto text = one["text"].get<std::string>();
    for (const bool special : {false, true}) {
      const auto ids =
          tokenizer->encode(text, {.add_bos = false, .add_eos = false, .parse_special = special});
      ASSERT_TRUE(ids) << ids.error().message();
      EXPECT_EQ(*ids, one[special ? "ids_special" : "ids"].get<std::vector<TokenId>>()) << text;
      EXPECT_EQ(tokenizer->decode(*ids, {.keep_special = true, .drop_added_space = true}).value(),
                spaces(text));
    }
  }
}

}  // namespace
}  // namespace mlxn::golden_suite
