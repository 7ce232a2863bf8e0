// Blocks as ggml decodes and encodes them; tools/golden_quant.py made the files.
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/quant.h"
#include "quant/codec.h"
#include "tests/support/source_dir.h"

namespace mlxn {
namespace {

std::vector<std::byte> read_golden(const std::string& name) {
  std::ifstream in(test::source_dir() + "/tests/golden/quant/" + name, std::ios::binary);
  const std::vector<char> chars(std::istreambuf_iterator<char>(in), {});
  const auto bytes = std::as_bytes(std::span(chars));
  return {bytes.begin(), bytes.end()};
}

std::string name_of(const testing::TestParamInfo<DType>& param) { return std::string(to_string(param.param)); }

// Equal bits, but the sign of a zero is free.
bool same_value(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (a == 0.0f && b == 0.0f);
}

class Decoder : public testing::TestWithParam<DType> {};
class Encoder : public testing::TestWithParam<DType> {};

TEST_P(Decoder, ReturnsTheBitsOfGgml) {
  const DType type = GetParam();
  const std::vector<std::byte> file = read_golden("decode_" + std::string(to_string(type)) + ".bin");
  ASSERT_GT(file.size(), 4u);
  std::uint32_t count = 0;
  std::memcpy(&count, file.data(), 4);
  const std::size_t elems = std::size_t{count} * block_elems(type);
  const std::size_t bytes = std::size_t{count} * block_bytes(type);
  ASSERT_EQ(file.size(), 4 + bytes + 4 * elems);
  std::vector<float> wanted(elems);
  std::memcpy(wanted.data(), file.data() + 4 + bytes, 4 * elems);

  std::vector<std::byte> shifted(bytes + 1);  // an odd address: files promise no alignment
  std::memcpy(shifted.data() + 1, file.data() + 4, bytes);
  std::vector<float> got(elems, std::bit_cast<float>(0x7fc00000u));
  ASSERT_TRUE(dequantize(type, std::span(shifted).subspan(1), got));
  for (std::size_t i = 0; i < elems; ++i) {
    ASSERT_TRUE(same_value(got[i], wanted[i]))
        << "element " << i << ": got " << std::hexfloat << got[i] << ", wanted " << wanted[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Decoder,
                         testing::Values(DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::q2_K,
                                         DType::q3_K, DType::q4_K, DType::q5_K, DType::q6_K, DType::iq4_nl,
                                         DType::iq4_xs, DType::mxfp4),
                         name_of);

TEST_P(Encoder, WritesTheBytesOfGgml) {
  const DType type = GetParam();
  const std::vector<std::byte> file = read_golden("encode_" + std::string(to_string(type)) + ".bin");
  ASSERT_GT(file.size(), 4u);
  std::uint32_t count = 0;
  std::memcpy(&count, file.data(), 4);
  const std::size_t elems = std::size_t{count} * 32;
  const std::size_t block = block_bytes(type);
  ASSERT_EQ(file.size(), 4 + 4 * elems + count * block);
  std::vector<float> x(elems);
  std::memcpy(x.data(), file.data() + 4, 4 * elems);

  std::vector<std::byte> got(count * block + 1);
  const auto blocks = std::span(got).subspan(1);
  ASSERT_TRUE(quantize(type, x, blocks));
  for (std::size_t b = 0; b < count; ++b) {
    for (std::size_t i = 0; i < block; ++i) {
      ASSERT_EQ(blocks[b * block + i], file[4 + 4 * elems + b * block + i]) << "block " << b << ", byte " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Encoder,
                         testing::Values(DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                                         DType::mxfp4),
                         name_of);

// The widening and narrowing of plain elements, against the types' own conversions.
TEST(PlainElements, EveryHalfAndBrainPatternDecodes) {
  std::vector<std::uint16_t> bits(0x10000);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  std::vector<float> got(bits.size());
  ASSERT_TRUE(dequantize(DType::f16, std::as_bytes(std::span(bits)), got));
  for (std::size_t i = 0; i < bits.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]),
              std::bit_cast<std::uint32_t>(static_cast<float>(f16::from_bits(bits[i]))));
  }
  ASSERT_TRUE(dequantize(DType::bf16, std::as_bytes(std::span(bits)), got));
  for (std::size_t i = 0; i < bits.size(); ++i) ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), i << 16);
}

TEST(PlainElements, NarrowingRoundsToNearestEven) {
  const std::vector<float> x = {1.0f, -2.5f, 1.0f + 0x1p-11f, 1.0f + 0x1.8p-10f, 0x1p-24f, 65504.0f, 1.0f + 0x1p-8f};
  std::vector<std::uint16_t> got(x.size());
  ASSERT_TRUE(quantize(DType::f16, x, std::as_writable_bytes(std::span(got))));
  EXPECT_EQ(got, (std::vector<std::uint16_t>{0x3c00, 0xc100, 0x3c00, 0x3c02, 1, 0x7bff, 0x3c04}));
  ASSERT_TRUE(quantize(DType::bf16, x, std::as_writable_bytes(std::span(got))));
  EXPECT_EQ(got, (std::vector<std::uint16_t>{0x3f80, 0xc020, 0x3f80, 0x3f80, 0x3380, 0x4780, 0x3f80}));
  std::vector<float> copy(x.size());
  ASSERT_TRUE(quantize(DType::f32, x, std::as_writable_bytes(std::span(copy))));
  EXPECT_EQ(copy, x);
}

// Small blocks whose values are easy to work out by hand.
TEST(Q5K, PlacesScalesMinimaAndHighBits) {
  const auto first_nonzero = [](std::initializer_list<std::pair<std::size_t, int>> set) {
    std::vector<std::byte> block(176);
    for (const auto& [offset, value] : set) block[offset] = static_cast<std::byte>(value);
    std::vector<float> out(256);
    EXPECT_TRUE(dequantize(DType::q5_K, block, out));
    return out;
  };
  constexpr std::pair<std::size_t, int> kOne = {1, 0x3c};  // d = 1
  EXPECT_EQ(first_nonzero({kOne, {4, 1}, {48, 0x0f}, {16, 1}})[0], 31.0f);
  EXPECT_EQ(first_nonzero({kOne, {4, 1}, {5, 2}, {48, 0xf0}, {16, 2}})[0], 0.0f);
  EXPECT_EQ(first_nonzero({kOne, {4, 1}, {5, 2}, {48, 0xf0}, {16, 2}})[32], 62.0f);
  EXPECT_EQ(first_nonzero({kOne, {12, 3}, {48 + 64, 5}, {16, 0x10}})[128], 63.0f);
  EXPECT_EQ(first_nonzero({{1, 0x40}, {2, 0x00}, {3, 0x42}, {4, 1}, {8, 1}, {48, 15}, {16, 1}})[0], 59.0f);
}

TEST(Mxfp4, ExtremeExponentsDecodeExactly) {
  std::vector<std::byte> block(17);
  std::vector<float> out(32);
  block[1] = std::byte{0x91};  // codes 0.5 and -0.5
  ASSERT_TRUE(dequantize(DType::mxfp4, block, out));
  EXPECT_EQ(out[0], 0x1p-128f);
  EXPECT_EQ(out[16], -0x1p-128f);
  block[0] = std::byte{254};
  ASSERT_TRUE(dequantize(DType::mxfp4, block, out));
  EXPECT_EQ(out[0], 0x1p126f);
  block[0] = std::byte{255};  // no valid scale, but ggml gives it 2^128
  ASSERT_TRUE(dequantize(DType::mxfp4, block, out));
  EXPECT_EQ(out[0], 0x1p127f);
}

}  // namespace
}  // namespace mlxn
