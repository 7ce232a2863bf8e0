// Weight records for Hopper's tensor cores (docs/hopper_layout.md): q4_0 blocks to records and back.
//
// A record is 16 rows x 128 k in 1,152 bytes, as many as in the file. Records of the same 16 rows follow each
// other along k, then come the next 16 rows. Rows past n and k past the end hold q = 8 and d = 0, that is
// zeros.
//   1,024 bytes of quants: two planes of 64 k, in each 16 bytes per lane of a warp, a 32-bit word per 16 k
//     128 bytes of scales: for g = 0..7 the f16 scales of row g, blocks 0..3, then of row g + 8
#pragma once

#include <cstdint>
#include <cstring>

namespace mlxn::quant {

inline constexpr std::uint32_t kRecordRows = 16;
inline constexpr std::uint32_t kRecordElems = 128;  // along k
inline constexpr std::uint32_t kQ4_0RecordBytes = 1152;

/// How many records hold a matrix [n, k]; k is a multiple of 32.
struct RecordShape {
  std::uint64_t tiles;         // of 16 rows
  std::uint64_t tile_records;  // along k

  constexpr RecordShape(std::uint64_t n, std::uint64_t k) noexcept
      : tiles((n + kRecordRows - 1) / kRecordRows), tile_records((k + kRecordElems - 1) / kRecordElems) {}
  [[nodiscard]] constexpr std::uint64_t records() const noexcept { return tiles * tile_records; }
};

/// Where the nibble of one element lies in a record.
struct RecordNibble {
  std::uint32_t byte;
  std::uint32_t shift;
};

/// row 0..15, k 0..127. Lane 4 g + t holds rows g and g + 8; the bytes of its word for k16 step s are k = 2t,
/// 2t+8, 2t+1 and 2t+9 of the step, row g low and row g + 8 high. So one word masked in four ways is operand
/// A of mma m16n8k16, and two words as they are, with k permuted, are operand A of the 8-bit m16n8k32.
[[nodiscard]] constexpr RecordNibble record_nibble(std::uint32_t row, std::uint32_t k) noexcept {
  const std::uint32_t plane = k / 64, step = k % 64 / 16, in_step = k % 16;
  const std::uint32_t lane = row % 8 * 4 + in_step % 8 / 2;
  return {plane * 512 + lane * 16 + step * 4 + in_step / 8 + in_step % 2 * 2, row / 8 * 4};
}

/// Where the f16 scale of a block of 32 (0..3) of a row lies in a record.
[[nodiscard]] constexpr std::uint32_t record_scale(std::uint32_t row, std::uint32_t block) noexcept {
  return 1024 + row % 8 * 16 + row / 8 * 8 + block * 2;
}

/// blocks: the file's bytes of a matrix [n, k], k a multiple of 32. records: RecordShape(n, k).records() *
/// 1152 bytes.
inline void q4_0_to_records(const std::uint8_t* blocks, std::uint64_t n, std::uint64_t k,
                            std::uint8_t* records) noexcept {
  const RecordShape shape(n, k);
  const std::uint64_t row_blocks = k / 32;
  for (std::uint64_t i = 0; i < shape.records(); ++i) {
    std::uint8_t* record = records + i * kQ4_0RecordBytes;
    std::memset(record, 0x88, 1024);
    std::memset(record + 1024, 0, kQ4_0RecordBytes - 1024);
    for (std::uint32_t row = 0; row < kRecordRows; ++row) {
      const std::uint64_t n_at = i / shape.tile_records * kRecordRows + row;
      for (std::uint32_t block = 0; block < 4; ++block) {
        const std::uint64_t b_at = i % shape.tile_records * 4 + block;
        if (n_at >= n || b_at >= row_blocks) continue;
        const std::uint8_t* from = blocks + (n_at * row_blocks + b_at) * 18;
        std::memcpy(record + record_scale(row, block), from, 2);
        for (std::uint32_t e = 0; e < 32; ++e) {
          const std::uint32_t q = from[2 + e % 16] >> (e / 16 * 4) & 15u;
          const RecordNibble to = record_nibble(row, block * 32 + e);
          record[to.byte] = static_cast<std::uint8_t>((record[to.byte] & ~(15u << to.shift)) | q << to.shift);
        }
      }
    }
  }
}

/// The inverse: the file's bytes again, bit for bit.
inline void q4_0_from_records(const std::uint8_t* records, std::uint64_t n, std::uint64_t k,
                              std::uint8_t* blocks) noexcept {
  const RecordShape shape(n, k);
  const std::uint64_t row_blocks = k / 32;
  for (std::uint64_t n_at = 0; n_at < n; ++n_at) {
    const std::uint32_t row = static_cast<std::uint32_t>(n_at % kRecordRows);
    for (std::uint64_t b_at = 0; b_at < row_blocks; ++b_at) {
      const std::uint32_t block = static_cast<std::uint32_t>(b_at % 4);
      const std::uint8_t* record =
          records + (n_at / kRecordRows * shape.tile_records + b_at / 4) * kQ4_0RecordBytes;
      std::uint8_t* to = blocks + (n_at * row_blocks + b_at) * 18;
      std::memcpy(to, record + record_scale(row, block), 2);
      for (std::uint32_t e = 0; e < 16; ++e) {
        const RecordNibble low = record_nibble(row, block * 32 + e),
                           high = record_nibble(row, block * 32 + 16 + e);
        to[2 + e] = static_cast<std::uint8_t>((record[low.byte] >> low.shift & 15u) |
                                              (record[high.byte] >> high.shift & 15u) << 4);
      }
    }
  }
}

}  // namespace mlxn::quant
