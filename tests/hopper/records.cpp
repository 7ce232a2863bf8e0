#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "quant/hopper_records.h"

namespace {

using namespace mlxn::quant;

TEST(HopperRecords, EveryNibbleAndScaleHasAPlaceOfItsOwn) {
  std::set<std::uint32_t> places;
  for (std::uint32_t row = 0; row < 16; ++row) {
    for (std::uint32_t k = 0; k < 128; ++k) {
      const RecordNibble at = record_nibble(row, k);
      EXPECT_LT(at.byte, 1024u);
      EXPECT_TRUE(places.insert(at.byte * 2 + at.shift / 4).second);
    }
  }
  EXPECT_EQ(places.size(), 2048u);
  std::set<std::uint32_t> scales;
  for (std::uint32_t row = 0; row < 16; ++row)
    for (std::uint32_t block = 0; block < 4; ++block) scales.insert(record_scale(row, block));
  EXPECT_EQ(scales.size(), 64u);
  EXPECT_EQ(*scales.begin(), 1024u);
  EXPECT_EQ(*scales.rbegin(), kQ4_0RecordBytes - 2);
}

TEST(HopperRecords, BlocksComeBackBitForBit) {
  std::mt19937 random(1);
  for (const auto& [n, k] : {std::pair{16u, 128u}, {1u, 32u}, {17u, 160u}, {100u, 704u}, {48u, 2880u}}) {
    const RecordShape shape(n, k);
    std::vector<std::uint8_t> blocks(std::size_t{n} * (k / 32) * 18), again(blocks.size());
    for (auto& byte : blocks) byte = static_cast<std::uint8_t>(random());
    std::vector<std::uint8_t> records(shape.records() * kQ4_0RecordBytes, 0xff);
    q4_0_to_records(blocks.data(), n, k, records.data());
    q4_0_from_records(records.data(), n, k, again.data());
    EXPECT_EQ(blocks, again) << n << " " << k;
    for (std::uint32_t row = n; row < shape.tiles * 16; ++row) {  // the padding is zeros
      const std::uint8_t* record = records.data() + row / 16 * shape.tile_records * kQ4_0RecordBytes;
      EXPECT_EQ(record[record_scale(row % 16, 0)] | record[record_scale(row % 16, 0) + 1], 0);
      EXPECT_EQ(record[record_nibble(row % 16, 5).byte] >> record_nibble(row % 16, 5).shift & 15, 8);
    }
  }
}

}  // namespace
