#include "mlxn/dtype.h"

#include <cmath>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace mlxn {
namespace {

TEST(DType, EveryTypeIsFoundByItsNameAndItsId) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(to_string(type)), type);
    if (info(type).gguf_id >= 0) {
      EXPECT_EQ(dtype_from_gguf(static_cast<std::uint32_t>(info(type).gguf_id)), type);
    }
  }
  EXPECT_EQ(parse_dtype("Q4_k"), DType::q4_K);
  EXPECT_FALSE(parse_dtype("q4"));
  EXPECT_EQ(dtype_from_gguf(17), DType::iq2_xs);  // not i16
  for (const std::uint32_t removed : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 43u, 0xffffffffu}) {
    EXPECT_FALSE(dtype_from_gguf(removed)) << removed;
  }
}

TEST(DType, NumbersThatAreNoneAreHarmless) {
  for (int i = 0; i < 256; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(is_dtype(type), i < kDTypeCount) << i;
    if (is_dtype(type)) continue;
    EXPECT_EQ(to_string(type), "unknown dtype");
    EXPECT_EQ(block_elems(type), 1u);
    EXPECT_EQ(block_bytes(type), 0u);
    EXPECT_EQ(info(type).gguf_id, -1);
    EXPECT_FALSE(is_block(type)) << i;
    EXPECT_FALSE(is_weight_type(type)) << i;
    EXPECT_FALSE(affine_info(type)) << i;
    EXPECT_FALSE(storage_bytes(type, 1)) << i;
  }
}

TEST(DType, AffineTypesSayWhatTheyAreMadeOf) {
  EXPECT_EQ(affine_info(DType::affine8_g64_bf16), (AffineInfo{8, 64, DType::bf16}));
  EXPECT_EQ(affine_info(DType::affine4_g128), (AffineInfo{4, 128, DType::f16}));
  EXPECT_EQ(affine_info(DType::affine4_g32_f32), (AffineInfo{4, 32, DType::f32}));
  EXPECT_EQ(affine_info(DType::q4_1), (AffineInfo{4, 32, DType::f16}));
  for (const DType other : {DType::f16, DType::q5_1, DType::mxfp4, DType::q2_0})
    EXPECT_FALSE(affine_info(other));
  int count = 0;
  for (const std::uint32_t bits : {4u, 8u}) {
    for (const std::uint32_t group : {32u, 64u, 128u}) {
      for (const DType scales : {DType::f16, DType::bf16, DType::f32}) {
        const auto type = affine_dtype({bits, group, scales});
        ASSERT_TRUE(type);
        EXPECT_EQ(affine_info(*type), (AffineInfo{bits, group, scales}));
        EXPECT_TRUE(is_block(*type) && is_weight_type(*type));
        EXPECT_EQ(info(*type).gguf_id >= 0, *type == DType::q4_1);
        const std::string name = "affine" + std::to_string(bits) + "_g" + std::to_string(group) +
                                 (scales == DType::f16 ? "" : "_" + std::string(to_string(scales)));
        EXPECT_EQ(to_string(*type), *type == DType::q4_1 ? "q4_1" : name);
        ++count;
      }
    }
  }
  EXPECT_EQ(count, 18);
  EXPECT_FALSE(affine_dtype({3, 32, DType::f16}));
  EXPECT_FALSE(affine_dtype({4, 16, DType::f16}));
  EXPECT_FALSE(affine_dtype({4, 32, DType::u8}));
}

TEST(DType, StorageBytesRefusesPartialBlocksAndOverflow) {
  EXPECT_EQ(storage_bytes(DType::q4_K, 512), 288u);
  EXPECT_FALSE(storage_bytes(DType::q4_K, 300));
  EXPECT_FALSE(storage_bytes(DType::f64, std::uint64_t{1} << 61));
}

TEST(F16, EveryBitPatternSurvivesTheRoundTrip) {
  for (std::uint32_t b = 0; b < 0x10000u; ++b) {
    const f16 h = f16::from_bits(static_cast<std::uint16_t>(b));
    const float x = static_cast<float>(h);
    if (std::isnan(x)) {
      EXPECT_EQ(f16(x).bits, 0x7e00);
    } else {
      EXPECT_EQ(f16(x).bits, b);
    }
  }
}

TEST(F16, RoundsToNearestEven) {
  EXPECT_EQ(f16(65519.f).bits, 0x7bff);
  EXPECT_EQ(f16(65520.f).bits, 0x7c00);
  EXPECT_EQ(f16(0x1p-24f).bits, 1);
  EXPECT_EQ(f16(0x1p-25f).bits, 0);
  EXPECT_EQ(f16(0x1.8p-24f).bits, 2);
  EXPECT_EQ(f16(-0.0f).bits, 0x8000);
  EXPECT_EQ(f16(1.0f + 0x1p-11f).bits, 0x3c00);
  EXPECT_EQ(f16(1.0f + 0x1.8p-10f).bits, 0x3c02);
}

TEST(BF16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(bf16(1.0f + 0x1p-8f).bits, 0x3f80);
  EXPECT_EQ(bf16(1.0f + 0x1.8p-7f).bits, 0x3f82);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace mlxn
