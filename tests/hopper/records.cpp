// Weight records: where every bit lies, and that nothing is lost.
#include "quant/records.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "quant/codec.h"
#include "quant/random_blocks.h"

namespace {

using namespace mlxn;
using namespace mlxn::quant;

std::vector<DType> types() {
  std::vector<DType> out;
  for (int i = 0; i < kDTypeCount; ++i)
    if (record_format(static_cast<DType>(i))) out.push_back(static_cast<DType>(i));
  return out;
}

class HopperRecords : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, HopperRecords, testing::ValuesIn(types()),
                         [](const auto& of) { return std::string(to_string(of.param)); });

// The affine types with f32 scales go without.
TEST(HopperRecords, EveryBlockTypeWithKernelsHasThem) {
  EXPECT_EQ(types().size(), 13u + 11u);
  for (const DType type : types()) {
    EXPECT_TRUE(is_block(type) && is_weight_type(type));
    EXPECT_EQ(record_format(type).block_elems, block_elems(type));
  }
}

TEST_P(HopperRecords, HaveAsManyBytesAsTheBlocks) {
  const RecordFormat format = record_format(GetParam());
  EXPECT_EQ(format.bytes(), 16 * format.blocks() * block_bytes(GetParam()));
}

TEST_P(HopperRecords, EveryBitHasAPlaceOfItsOwn) {
  const RecordFormat format = record_format(GetParam());
  std::set<std::uint32_t> bits;
  for (std::uint32_t half = 0; half < format.elems / kRecordHalf; ++half)
    for (std::uint32_t p = 0; p < 2; ++p)
      for (std::uint32_t row = 0; row < 16 && format.planes[p].bits != 0; ++row)
        for (std::uint32_t k = 0; k < 128; ++k) {
          const RecordPlace at = record_place(format.planes[p], row, k);
          for (std::uint32_t b = 0; b < format.planes[p].bits; ++b)
            EXPECT_TRUE(bits.insert((format.plane_offset(half, p) + at.byte) * 8 + at.shift + b).second);
        }
  for (std::uint32_t a = 0; a < 2; ++a)
    for (std::uint32_t row = 0; row < 16; ++row)
      for (std::uint32_t block = 0; block < format.blocks(); ++block)
        for (std::uint32_t b = 0; b < format.areas[a].bytes * 8; ++b)
          EXPECT_TRUE(bits.insert((format.area_offset(a) +
                                   record_area_place(format.areas[a].bytes, format.blocks(), row, block)) *
                                      8 +
                                  b)
                          .second);
  EXPECT_EQ(bits.size(), format.bytes() * 8);
  EXPECT_EQ(*bits.rbegin(), format.bytes() * 8 - 1);
}

TEST_P(HopperRecords, BlocksComeBackBitForBit) {
  const DType type = GetParam();
  const RecordFormat format = record_format(type);
  std::mt19937 random(1);
  const std::int64_t block = format.block_elems;
  for (const auto& [n, k] : {std::pair<std::int64_t, std::int64_t>{16, 4 * block}, {1, block}, {17, 5 * block}, {100, 22 * block},
                             {33, 32}, {33, 64}, {33, 96}, {33, 160}, {33, 704}, {33, 1056}, {33, 2112}, {33, 2880}}) {
    if (k % block != 0) continue;
    std::vector<std::uint8_t> blocks(static_cast<std::size_t>(n * k / block) * block_bytes(type)),
        again(blocks.size(), 0xee);
    for (auto& byte : blocks) byte = static_cast<std::uint8_t>(random());
    const RecordGrid grid = record_grid(format, n, k);
    std::vector<std::uint8_t> records(grid.bytes() + 16, 0xff);
    pack_records(type, blocks.data(), n, k, records.data());
    unpack_records(type, records.data(), n, k, again.data());
    EXPECT_EQ(blocks, again) << n << " " << k;
    for (std::size_t i = records.size() - 16; i < records.size(); ++i)
      EXPECT_EQ(records[i], 0xff);  // no byte too many
    // Codes past k, up to the end of a strip, and their blocks' row data are zero bytes.
    if (const auto left = static_cast<std::uint32_t>(k % format.elems); left != 0) {
      const std::uint8_t* record = records.data() + grid.tile_bytes - format.tile_bytes(left);
      const std::uint32_t strip = format.planes[0].strip_elems();
      for (std::uint32_t row = 0; row < 16; ++row) {
        for (std::uint32_t at = left; at < (left + strip - 1) / strip * strip; ++at) {
          const RecordPlace place = record_place(format.planes[0], row, at);
          EXPECT_EQ(record[format.plane_offset(0, 0) + place.byte] >> place.shift & ((1 << format.planes[0].bits) - 1), 0);
        }
        for (std::uint32_t b = left / format.block_elems; b < format.blocks(); ++b)
          for (std::uint32_t byte = 0; byte < format.areas[0].bytes; ++byte)
            EXPECT_EQ(record[record_area_place(format.areas[0].bytes, format.blocks(), row, b) + byte], 0);
      }
    }
    // Rows past the end are zero bytes.
    for (std::uint32_t row = static_cast<std::uint32_t>(n % 16); row != 0 && row < 16; ++row) {
      const std::uint8_t* record = records.data() + (grid.tiles - 1) * grid.tile_bytes;
      EXPECT_EQ(record[format.plane_offset(0, 0) + record_place(format.planes[0], row, 5).byte] >>
                        record_place(format.planes[0], row, 5).shift &
                    ((1 << format.planes[0].bits) - 1),
                0);
      EXPECT_EQ(
          record[format.area_offset(0) + record_area_place(format.areas[0].bytes, format.blocks(), row, 0)],
          0);
    }
  }
}

// The place of one code, from the file's side: q4_0 as the first kernels were written for.
TEST(HopperRecords, AreWhatKernelsRead) {
  std::vector<std::uint8_t> blocks(16 * 4 * 18);
  blocks[(9 * 4 + 2) * 18] = 0x34, blocks[(9 * 4 + 2) * 18 + 1] = 0x12;  // row 9, block 2: scale
  blocks[(9 * 4 + 2) * 18 + 2 + 11] = 0xa0;                              // element 27: k 91
  std::vector<std::uint8_t> records(1152), expected(1152);
  pack_records(DType::q4_0, blocks.data(), 16, 128, records.data());
  expected[1 * 16 + 8 + 2 * 2] = 0x34, expected[1 * 16 + 8 + 2 * 2 + 1] = 0x12;
  // Step 5 of 16 k, k 11 of it: strip 1, lane 4 * 1 + 1, word 1, byte 3, the upper nibble.
  expected[128 + 512 + 5 * 16 + 4 + 3] = 0xa0;
  EXPECT_EQ(records, expected);
}

/// By how much the records of 1024 rows are larger than the file's blocks.
double overhead(DType type, std::int64_t k) {
  return static_cast<double>(record_grid(record_format(type), 1024, k).bytes()) /
             (1024.0 * static_cast<double>(k / block_elems(type) * block_bytes(type))) -
         1;
}
// Of every k that strips of codes divide.
TEST_P(HopperRecords, TakeAtMostTwoPercentMoreThanTheBlocks) {
  const RecordFormat format = record_format(GetParam());
  const std::int64_t step = std::max(format.has_halves() ? format.elems : format.planes[0].strip_elems(), format.block_elems);
  for (std::int64_t k = (1024 + step - 1) / step * step; k <= 16384; k += step) {
    EXPECT_GE(overhead(GetParam(), k), 0) << k;
    EXPECT_LE(overhead(GetParam(), k), 0.02) << k;
  }
}
// Others end inside of a strip of 64 k.
TEST(HopperRecords, OddMultiplesOf32TakeMoreOfFourBits) {
  for (const auto& [type, at_1056] : {std::pair{DType::mxfp4, 0.034}, {DType::q4_0, 0.038}, {DType::iq4_nl, 0.038}, {DType::q4_1, 0.043},
                                      {DType::affine4_g32_bf16, 0.043}, {DType::q5_0, 0.047}, {DType::q5_1, 0.051}}) {
    EXPECT_GT(overhead(type, 1056), at_1056 - 0.001) << to_string(type);
    for (std::int64_t k = 1056; k <= 16384; k += 64) {
      EXPECT_LE(overhead(type, k), at_1056) << to_string(type) << " " << k;
      if (k > 2592) {
        EXPECT_LE(overhead(type, k), 0.02) << to_string(type) << " " << k;
      }
    }
  }
}

}  // namespace
