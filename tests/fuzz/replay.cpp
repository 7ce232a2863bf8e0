// Runs the fuzz targets over the corpus and over mutations of it that are the same on every machine.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/targets.h"
#include "tests/support/source_dir.h"

namespace mlxn::fuzz {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Target = std::string (*)(std::span<const std::uint8_t>);

constexpr int kMutations = 1500;  // per seed

std::vector<std::pair<std::string, Bytes>> corpus(const std::string& part) {
  std::vector<std::pair<std::string, Bytes>> out;
  const std::filesystem::path folder = std::filesystem::path(mlxn::test::source_dir()) / "tests/fuzz/corpus" / part;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    out.emplace_back(entry.path().filename().string(), Bytes(std::istreambuf_iterator<char>(in), {}));
  }
  std::sort(out.begin(), out.end());
  return out;
}

void mutate(Bytes& bytes, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) {
    return static_cast<std::size_t>(random() % std::max<std::size_t>(n, 1));
  };
  const auto at = [&](std::size_t i) { return bytes.begin() + static_cast<std::ptrdiff_t>(i); };
  constexpr std::uint64_t numbers[] = {0,          1,          0x7f,       0x80,       0xff,       0x7fffffff,
                                       0x80000000, 0xffffffff, 1ull << 32, 1ull << 48, 1ull << 61, 1ull << 62,
                                       1ull << 63, ~0ull - 7,  ~0ull - 31, ~0ull};
  for (std::size_t n = 1 + below(4); n > 0; --n) {
    if (bytes.empty()) bytes.push_back(0);
    const std::size_t i = below(bytes.size());
    const std::size_t length = std::min(bytes.size() - i, 1 + below(16));
    switch (random() % 7) {
      case 0:
        bytes[i] = static_cast<std::uint8_t>(bytes[i] ^ (1u << (random() % 8)));
        break;
      case 1:
        bytes[i] = static_cast<std::uint8_t>(random());
        break;
      case 2: {
        const std::uint64_t number = numbers[below(std::size(numbers))];
        const std::size_t width = random() % 2 == 0 ? 4 : 8;
        std::memcpy(&bytes[i], &number, std::min(bytes.size() - i, width));
        break;
      }
      case 3:
        bytes.erase(at(i), at(i + length));
        break;
      case 4:
        bytes.insert(at(i), 1 + below(16), static_cast<std::uint8_t>(random()));
        break;
      case 5: {
        const Bytes part(at(i), at(i + length));
        const std::size_t to = below(bytes.size());
        bytes.insert(at(to), part.begin(), part.end());
        break;
      }
      case 6:
        bytes.resize(i);
        break;
    }
  }
}

/// Each replays one share of a corpus, so that several processes do it beside each other.
class FuzzReplay : public ::testing::TestWithParam<std::size_t> {
 protected:
  static constexpr std::size_t kShares = 4;

  static void replay(const std::string& part, Target target) {
    const auto seeds = corpus(part);
    ASSERT_GE(seeds.size(), kShares);
    for (std::size_t i = GetParam(); i < seeds.size(); i += kShares) {
      const auto& [name, seed] = seeds[i];
      std::mt19937_64 random(0x6d6c786e + i);
      ASSERT_EQ(target(seed), "") << name;
      for (int round = 0; round < kMutations; ++round) {
        Bytes bytes = seed;
        mutate(bytes, random);
        bytes.shrink_to_fit();  // so that the sanitizer sees the end
        ASSERT_EQ(target(bytes), "") << name << ", mutation " << round;
      }
    }
  }
};

TEST_P(FuzzReplay, Gguf) { replay("gguf", check_gguf); }
TEST_P(FuzzReplay, GgufParts) { replay("gguf_parts", check_gguf_parts); }
TEST_P(FuzzReplay, Tokenizer) { replay("tokenizer", check_tokenizer); }
TEST_P(FuzzReplay, BytePairs) { replay("byte_pairs", check_byte_pairs); }

INSTANTIATE_TEST_SUITE_P(Share, FuzzReplay, ::testing::Range<std::size_t>(0, 4));

}  // namespace
}  // namespace mlxn::fuzz
