#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/quant.h"
#include "quant/blocks.h"

namespace mlxn {
namespace {

constexpr DType kEncoded[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::mxfp4};

std::vector<std::byte> encode(DType type, const std::vector<float>& x) {
  std::vector<std::byte> blocks(x.size() / block_elems(type) * block_bytes(type));
  const Result<void> done = quantize(type, x, blocks);
  EXPECT_TRUE(done) << done.error().message();
  return blocks;
}

std::vector<float> decode(DType type, const std::vector<std::byte>& blocks) {
  std::vector<float> out(blocks.size() / block_bytes(type) * block_elems(type));
  const Result<void> done = dequantize(type, blocks, out);
  EXPECT_TRUE(done) << done.error().message();
  return out;
}

std::vector<float> uniform(std::size_t count, unsigned seed, float low, float high) {
  std::mt19937 random(seed);
  std::vector<float> x(count);
  for (float& v : x) v = low + (high - low) * static_cast<float>(random() >> 8) * 0x1p-24f;
  return x;
}

// The step between neighbouring codes at x, and the range that codes reach, of one block of 32.
struct Grid {
  double step;
  double low;
  double high;
};
Grid grid_of(DType type, const float* x) {
  double amax = 0;
  double extreme = 0;
  double least = x[0];
  double most = x[0];
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(x[i]) > amax) {
      amax = std::fabs(x[i]);
      extreme = x[i];
    }
    least = std::min(least, double{x[i]});
    most = std::max(most, double{x[i]});
  }
  const double inf = std::numeric_limits<double>::infinity();
  switch (type) {
    case DType::q4_0: return {amax / 8, extreme < 0 ? -inf : -amax * 7 / 8, extreme < 0 ? amax * 7 / 8 : inf};
    case DType::q5_0: return {amax / 16, extreme < 0 ? -inf : -amax * 15 / 16, extreme < 0 ? amax * 15 / 16 : inf};
    case DType::q4_1: return {(most - least) / 15, -inf, inf};
    case DType::q5_1: return {(most - least) / 31, -inf, inf};
    case DType::q8_0: return {amax / 127, -inf, inf};
    default: return {0, 0, 0};
  }
}

TEST(RoundTrip, StaysWithinHalfAStep) {
  for (const DType type : kEncoded) {
    if (type == DType::mxfp4) continue;  // steps differ along its range: below
    for (const unsigned seed : {1u, 2u, 3u}) {
      const std::vector<float> x = uniform(32 * 256, seed, seed == 3 ? 0.5f : -1.0f, 1.0f);
      const std::vector<float> y = decode(type, encode(type, x));
      for (std::size_t i = 0; i < x.size(); ++i) {
        const Grid g = grid_of(type, &x[i / 32 * 32]);
        // Where the side opposite to the extreme has one code less, its outermost values are clipped to the last code.
        const double target = std::min(std::max(double{x[i]}, g.low), g.high);
        // The scale and the minimum are rounded to f16: 2^-11 of the largest value each.
        ASSERT_LE(std::fabs(y[i] - target), g.step * 0.5001 + 0x1p-10) << to_string(type) << " seed " << seed << " at " << i;
      }
    }
  }
}

TEST(RoundTrip, Mxfp4TakesTheNearestOfItsCodes) {
  const std::vector<float> x = uniform(32 * 256, 4, -3.0f, 3.0f);
  const std::vector<std::byte> blocks = encode(DType::mxfp4, x);
  const std::vector<float> y = decode(DType::mxfp4, blocks);
  constexpr double kMagnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double scale = std::ldexp(1.0, std::to_integer<int>(blocks[i / 32 * 17]) - 127);
    double least = std::numeric_limits<double>::infinity();
    for (const double magnitude : kMagnitudes) {
      least = std::min({least, std::fabs(x[i] - scale * magnitude), std::fabs(x[i] + scale * magnitude)});
    }
    ASSERT_EQ(std::fabs(double{x[i]} - y[i]), least) << i;
  }
}

// A scale with few bits has exact products, so that a second encoding finds the same block.
TEST(RoundTrip, EncodingDecodedBlocksChangesNothing) {
  for (const DType type : {DType::q8_0, DType::mxfp4}) {
    const std::vector<float> x = uniform(32 * 64, 5, -1.0f, 1.0f);
    const std::vector<float> y = decode(type, encode(type, x));
    EXPECT_EQ(decode(type, encode(type, y)), y) << to_string(type);
  }
}

TEST(Encoder, ZerosBecomeTheBytesOfTheFormat) {
  const std::vector<float> zero(32, 0.0f);
  std::vector<std::byte> q4_0(18, std::byte{0x88});
  q4_0[0] = std::byte{0};
  q4_0[1] = std::byte{0x80};
  EXPECT_EQ(encode(DType::q4_0, zero), q4_0);
  std::vector<std::byte> q5_0(22, std::byte{0});
  q5_0[1] = std::byte{0x80};
  for (std::size_t i = 2; i < 6; ++i) q5_0[i] = std::byte{0xff};
  EXPECT_EQ(encode(DType::q5_0, zero), q5_0);
  for (const DType type : {DType::q4_1, DType::q5_1, DType::q8_0, DType::mxfp4}) {
    EXPECT_EQ(encode(type, zero), std::vector<std::byte>(block_bytes(type), std::byte{0})) << to_string(type);
  }
}

TEST(Encoder, TheExtremeTakesCodeZeroOfQ4AndQ5) {
  std::vector<float> x(32, 0.0f);
  for (const float extreme : {4.0f, -4.0f}) {
    x[3] = extreme;
    const std::vector<std::byte> q4_0 = encode(DType::q4_0, x);
    EXPECT_EQ(std::to_integer<int>(q4_0[2 + 3]) & 15, 0);
    EXPECT_EQ(std::to_integer<int>(q4_0[1]) >> 7, extreme > 0 ? 1 : 0);  // a negative scale for a positive extreme
    EXPECT_EQ(decode(DType::q4_0, q4_0)[3], extreme);
    EXPECT_EQ(decode(DType::q5_0, encode(DType::q5_0, x))[3], extreme);
  }
}

// Values so small that the reciprocal of the scale overflows, and an exponent below the least one.
TEST(Encoder, SubnormalValuesBecomeZeros) {
  std::vector<float> x(32, 0.0f);
  x[0] = 0x1p-149f;
  x[1] = -0x1p-149f;
  for (const DType type : kEncoded) {
    for (const float y : decode(type, encode(type, x))) EXPECT_EQ(y, 0.0f) << to_string(type);
  }
  x[2] = 0x1p-126f;
  EXPECT_EQ(encode(DType::mxfp4, x)[0], std::byte{0});
}

TEST(Quantize, RefusesWhatHasNoBlock) {
  std::vector<float> x(32, 1.0f);
  for (const DType type : kEncoded) {
    std::vector<std::byte> blocks(block_bytes(type));
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      x[5] = bad;
      const Result<void> done = quantize(type, x, blocks);
      ASSERT_FALSE(done) << to_string(type);
      EXPECT_EQ(done.error().code(), ErrorCode::out_of_range);
      EXPECT_NE(done.error().message().find("x[5]"), std::string_view::npos) << done.error().message();
    }
    x[5] = 1e30f;
    EXPECT_EQ(static_cast<bool>(quantize(type, x, blocks)), type == DType::mxfp4) << to_string(type);
    x[5] = 1.0f;
  }
  std::vector<std::byte> two(2);
  const std::vector<float> large(1, 65520.0f);
  EXPECT_FALSE(quantize(DType::f16, large, two));
  EXPECT_TRUE(quantize(DType::bf16, large, two));
}

void expect_error(const Result<void>& done, ErrorCode code, std::initializer_list<std::string_view> words) {
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), code);
  for (const std::string_view word : words) {
    EXPECT_NE(done.error().message().find(word), std::string_view::npos) << done.error().message() << " lacks " << word;
  }
}

TEST(Sizes, AreCheckedWithWantedAndGot) {
  std::vector<float> x(33);
  std::vector<std::byte> blocks(36);
  const auto bytes = std::span(blocks);
  const auto floats = std::span(x);
  expect_error(dequantize(DType::q4_0, bytes.first(19), floats.first(32)), ErrorCode::bad_shape, {"dequantize", "19", "18", "q4_0"});
  expect_error(dequantize(DType::q4_0, bytes.first(18), floats), ErrorCode::bad_shape, {"dequantize", "out", "33", "32"});
  expect_error(dequantize(DType::q4_0, bytes, floats.first(32)), ErrorCode::bad_shape, {"32", "64"});
  expect_error(quantize(DType::q4_0, floats, bytes.first(18)), ErrorCode::bad_shape, {"quantize", "33", "32"});
  expect_error(quantize(DType::q4_0, floats.first(32), bytes.first(17)), ErrorCode::bad_shape, {"quantize", "17", "18"});
  expect_error(quantize(DType::q4_0, floats.first(32), bytes), ErrorCode::bad_shape, {"36", "18"});
  expect_error(validate_blocks(DType::mxfp4, bytes.first(18)), ErrorCode::bad_shape, {"validate_blocks", "18", "17"});
}

TEST(Types, WithoutCodecAreUnsupported) {
  std::vector<std::byte> none;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    const std::string name(to_string(type));
    if (is_weight_type(type)) {
      EXPECT_TRUE(dequantize(type, none, {})) << name;
      EXPECT_TRUE(validate_blocks(type, none)) << name;
    } else {
      expect_error(dequantize(type, none, {}), ErrorCode::unsupported, {"dequantize", name});
      expect_error(validate_blocks(type, none), ErrorCode::unsupported, {"validate_blocks", name});
    }
    const Result<void> encoded = quantize(type, {}, none);
    if (!encoded) expect_error(encoded, ErrorCode::unsupported, {"quantize", name});
  }
  for (const DType type : {DType::q2_K, DType::q4_K, DType::q6_K, DType::iq4_nl, DType::iq4_xs, DType::i32}) {
    EXPECT_FALSE(quantize(type, {}, none)) << to_string(type);
  }
}

TEST(Types, ThatAreNoneAreBadDtype) {
  std::vector<std::byte> blocks(18);
  std::vector<float> floats(32);
  for (const int number : {kDTypeCount, 200, 255}) {
    const auto type = static_cast<DType>(number);
    const std::string name = "dtype " + std::to_string(number) + " is none";
    expect_error(dequantize(type, blocks, floats), ErrorCode::bad_dtype, {"dequantize", name});
    expect_error(quantize(type, floats, blocks), ErrorCode::bad_dtype, {"quantize", name});
    expect_error(validate_blocks(type, blocks), ErrorCode::bad_dtype, {"validate_blocks", name});
  }
}

TEST(ValidateBlocks, FindsEachScaleField) {
  using namespace quant;
  const std::pair<DType, std::vector<std::size_t>> fields[] = {
      {DType::f32, {2}},         {DType::f16, {0}},     {DType::bf16, {0}},        {DType::q4_0, {0}},
      {DType::q4_1, {0, 2}},     {DType::q5_0, {0}},    {DType::q5_1, {0, 2}},     {DType::q8_0, {0}},
      {DType::q2_K, {80, 82}},   {DType::q3_K, {108}},  {DType::q4_K, {0, 2}},     {DType::q5_K, {0, 2}},
      {DType::q6_K, {208}},      {DType::iq4_nl, {0}},  {DType::iq4_xs, {0}},
      {DType::affine8_g64, {0, 2}}, {DType::affine4_g64_bf16, {0, 2}}, {DType::affine4_g128_f32, {2, 6}},
  };
  for (const auto& [type, offsets] : fields) {
    for (const std::size_t offset : offsets) {
      for (const int top : {0x7f80, 0xff80, 0x7fff}) {  // not finite as a half nor as the top of a float
        const auto bits = static_cast<std::uint16_t>(top);
        std::vector<std::byte> blocks(3 * block_bytes(type));
        EXPECT_TRUE(validate_blocks(type, blocks)) << to_string(type);
        std::memcpy(&blocks[2 * block_bytes(type) + offset], &bits, 2);
        const Result<void> done = validate_blocks(type, blocks);
        expect_error(done, ErrorCode::corrupt_file, {"block 2 of 3", to_string(type)});
        if (!done) {
          EXPECT_EQ(done.error().rule(), "V17");
        }
      }
    }
  }
  std::vector<std::byte> mxfp4(2 * 17, std::byte{254});
  EXPECT_TRUE(validate_blocks(DType::mxfp4, mxfp4));
  mxfp4[17] = std::byte{255};
  expect_error(validate_blocks(DType::mxfp4, mxfp4), ErrorCode::corrupt_file, {"block 1 of 2"});
}

}  // namespace
}  // namespace mlxn
