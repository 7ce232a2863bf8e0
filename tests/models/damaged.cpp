// Damaged model files: the whole way from the bytes to two generated tokens ends in a result or in an error, never in
// anything else. What the sanitizers would find shows when the suite runs under them.

#include <algorithm>
#include <array>
#include <fstream>

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/support/must.h"
#include "tests/support/random.h"
#include "tests/support/source_dir.h"

namespace mlxn {
namespace {

std::vector<std::byte> demo_bytes() {
  std::ifstream in(test::source_dir() + "/data/demo/demo-q4_k.gguf", std::ios::binary | std::ios::ate);
  const std::streamoff size = in.tellg();
  EXPECT_GT(size, 0);
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::max<std::streamoff>(size, 0)));
  in.seekg(0).read(reinterpret_cast<char*>(bytes.data()), size);
  EXPECT_TRUE(in.good());
  return bytes;
}

/// What `mlxn generate` does with a file.
Result<void> generate(std::span<const std::byte> bytes, const Device& device) {
  MLXN_TRY(const GgufFile file, GgufFile::parse(bytes));
  MLXN_TRY(const Tokenizer tokenizer, Tokenizer::from_gguf(file));
  MLXN_TRY(const std::vector<TokenId> tokens, tokenizer.encode("To be"));
  LoadOptions load;
  load.prepare = PrepareMode::off;
  MLXN_TRY(const Model model, Model::load(file, device, load));
  SessionOptions options;
  options.context = 16;
  MLXN_TRY(Session session, Session::create(model, options));
  MLXN_TRY(Sampler sampler, Sampler::create(device, model.info().vocab));
  MLXN_TRY(Tensor logits, session.append(tokens));
  for (int i = 0; i < 2; ++i) {
    MLXN_TRY(const TokenId token, sampler.next(logits));
    MLXN_TRY(const std::string piece, tokenizer.piece(token));
    MLXN_TRY(logits, session.append({&token, 1}));
  }
  return {};
}

/// Errors that a damaged file may give: it is corrupt, asks for something that there is not, or for too much.
bool is_expected(const Error& error) {
  constexpr std::array kCodes = {ErrorCode::corrupt_file,    ErrorCode::unsupported, ErrorCode::not_found,
                                 ErrorCode::limit_exceeded,  ErrorCode::bad_shape,   ErrorCode::invalid_argument,
                                 ErrorCode::out_of_memory,   ErrorCode::out_of_range};
  for (const ErrorCode code : kCodes) {
    if (error.code() == code) return !error.message().empty();
  }
  return false;
}

/// Each does one share of the work, so that several processes do it beside each other.
class DamagedFile : public testing::TestWithParam<std::uint64_t> {
 protected:
  static constexpr std::uint64_t kShares = 8;
};

TEST_P(DamagedFile, CutAtEveryByteOfTheHeaderAndAtTwoHundredPlacesOfTheData) {
  const std::vector<std::byte> bytes = demo_bytes();
  const Device device = test::must(Device::open("cpu"));
  test::must(generate(bytes, device));
  const std::uint64_t header = test::must(GgufFile::parse(bytes)).data_offset();
  const auto refused_at = [&](std::uint64_t length) {
    const auto result = generate(std::span(bytes).first(length), device);
    ASSERT_FALSE(result) << length;
    EXPECT_EQ(result.error().code(), ErrorCode::corrupt_file) << length << ": " << result.error().message();
  };
  for (std::uint64_t length = GetParam(); length < header; length += kShares) refused_at(length);
  for (std::uint64_t i = GetParam(); i < 200; i += kShares) refused_at(header + (bytes.size() - header - 32) * i / 200);
}

TEST_P(DamagedFile, TenThousandFlipsInTheHeader) {
  const std::vector<std::byte> good = demo_bytes();
  const Device device = test::must(Device::open("cpu"));
  const std::uint64_t header = test::must(GgufFile::parse(good)).data_offset();
  test::Random random(20261123 + GetParam());
  SCOPED_TRACE(random.trace());
  std::vector<std::byte> bytes = good;
  int refused = 0;
  for (int round = 0; round < static_cast<int>(10'000 / kShares); ++round) {
    // Half of the flips hit the first bytes of the header, where the keys are: most of it is the vocabulary.
    const std::uint64_t at = random.below(round % 2 == 0 ? header : 2048);
    const auto mask = static_cast<std::byte>(1 + random.below(255));
    bytes[at] ^= mask;
    const auto result = generate(bytes, device);
    if (!result) {
      ++refused;
      EXPECT_TRUE(is_expected(result.error()))
          << "byte " << at << ": " << to_string(result.error().code()) << ", " << result.error().message();
    }
    bytes[at] = good[at];
  }
  EXPECT_GT(refused, 1000 / static_cast<int>(kShares));
}

INSTANTIATE_TEST_SUITE_P(Share, DamagedFile, testing::Range<std::uint64_t>(0, 8));

}  // namespace
}  // namespace mlxn
