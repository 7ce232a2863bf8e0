// The dialect's own arithmetic as host C++, against the library's types.

#include <bit>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "mlxn/dtype.h"
#include "portable/dialect.h"
#include "tests/support/random.h"

namespace mlxn::dialect_suite {
namespace {

void expect_same_bits(float value) {
  EXPECT_EQ(gpu::float_to_f16(value), f16(value).bits) << value << " " << std::bit_cast<std::uint32_t>(value);
  EXPECT_EQ(gpu::bf16_bits(value), bf16(value).bits) << value << " " << std::bit_cast<std::uint32_t>(value);
}

TEST(Dialect, EveryHalfAsFloat) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float wanted = static_cast<float>(f16::from_bits(bits)), got = gpu::f16_to_float(bits);
    if (std::isnan(wanted)) {
      EXPECT_TRUE(std::isnan(got)) << i;
      EXPECT_TRUE(gpu::is_nan(got)) << i;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(wanted)) << i;
      EXPECT_FALSE(gpu::is_nan(got)) << i;
    }
    const gpu::bf16 brain{bits};
    EXPECT_EQ(std::bit_cast<std::uint32_t>(gpu::to_float(brain)), std::uint32_t{bits} << 16);
  }
}

/// Every f16 and bf16, the middle to the next, and the floats beside these.
TEST(Dialect, FloatAsHalfRoundsToNearestEven) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const std::uint32_t half = std::bit_cast<std::uint32_t>(gpu::f16_to_float(bits)), brain = std::uint32_t{bits} << 16;
    // Half a step of f16: 2^12 in an f32's fraction, more where the f16 is subnormal.
    const std::uint32_t exponent = bits >> 10 & 31;
    const float step = std::ldexp(1.0f, static_cast<int>(exponent == 0 ? 1 : exponent) - 15 - 11);
    const std::uint32_t middle = std::bit_cast<std::uint32_t>(std::bit_cast<float>(half) + (bits < 0x8000 ? step : -step));
    for (const std::uint32_t base : {half, middle, half + 0x1000, brain, brain + 0x8000}) {
      for (const std::uint32_t offset : {-1, 0, 1}) expect_same_bits(std::bit_cast<float>(base + offset));
    }
  }
}

TEST(Dialect, FloatAsHalfForManyFloats) {
  for (std::uint64_t i = 0; i < (std::uint64_t{1} << 32); i += 997) expect_same_bits(std::bit_cast<float>(static_cast<std::uint32_t>(i)));
  using Limits = std::numeric_limits<float>;
  for (const float v : {Limits::infinity(), Limits::max(), Limits::min(), Limits::denorm_min(), Limits::quiet_NaN(),
                        Limits::signaling_NaN(), 65504.0f, 65519.996f, 65520.0f, 65536.0f, 0.0f}) {
    expect_same_bits(v);
    expect_same_bits(-v);
  }
}

TEST(Dialect, Infinity) {
  EXPECT_EQ(gpu::infinity(), std::numeric_limits<float>::infinity());
  EXPECT_FALSE(gpu::is_nan(gpu::infinity()));
}

TEST(Dialect, WordsFromAnyAddress) {
  alignas(4) const std::uint8_t bytes[8] = {0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x76, 0x87};
  EXPECT_EQ(gpu::load_u32(bytes), 0x43322110u);
  EXPECT_EQ(gpu::load_u32_2(bytes + 2), 0x65544332u);
  EXPECT_EQ(gpu::load_u32_1(bytes + 3), 0x76655443u);
  EXPECT_EQ(gpu::load_u16(bytes + 2), 0x4332u);
  EXPECT_EQ(gpu::load_u16_1(bytes + 1), 0x3221u);
}

}  // namespace
}  // namespace mlxn::dialect_suite
