// Token ids as other implementations give them.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"
#include "mlxn/tokenizer.h"
#include "nlohmann/json.hpp"

namespace mlxn {
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

TEST(TokenizerGolden, LlamaVocabulary) {
  const char* folder = std::getenv("MLXN_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "MLXN_TEST_DATA is not set";
  const std::string base = std::string(folder) + "/ggml-vocab-llama-spm.gguf";
  if (!std::filesystem::exists(base)) GTEST_SKIP() << base << " is not there";
  const auto file = GgufFile::open(base);
  ASSERT_TRUE(file) << file.error().message();
  const auto tokenizer = Tokenizer::from_gguf(*file);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), 32000u);

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
    const std::string with_space = inputs[i].empty() ? "" : " " + inputs[i];
    EXPECT_EQ(tokenizer->decode(*ids, {.keep_special = false, .drop_added_space = false}).value(),
              with_space);
  }
}

TEST(TokenizerGolden, DemoModel) {
  const std::filesystem::path root = MLXN_SOURCE_DIR;
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

TEST(TokenizerGolden, EveryOtherVocabularyIsNamed) {
  const char* folder = std::getenv("MLXN_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "MLXN_TEST_DATA is not set";
  for (const char* name : {"deepseek-coder", "falcon", "gpt-2"}) {
    const std::string path = std::string(folder) + "/ggml-vocab-" + name + ".gguf";
    if (!std::filesystem::exists(path)) continue;
    const auto file = GgufFile::open(path);
    ASSERT_TRUE(file) << file.error().message();
    EXPECT_EQ(Tokenizer::from_gguf(*file).error().code(), ErrorCode::unsupported) << name;
  }
}

}  // namespace
}  // namespace mlxn
