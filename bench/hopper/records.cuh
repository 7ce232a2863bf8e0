#pragma once
/// Weight records of q4_0 for Hopper, 1152 bytes = 16 rows x 128 k, 4.5 bits a weight.
///
///   bytes 0..1023     quants: two planes of 64 k; in each, lane l of a warp owns 16 bytes: four words, one
///   per k16.
///                     A word is the lane's A fragment: nibble i is row l/4 + 8 * (i % 2),
///                     k 2 * (l % 4) + i / 4 + 8 * (i / 2 % 2) of the k16 step.
///   bytes 1024..1151  scales: for g = 0..7, 16 bytes: row g blocks 0..3, row g + 8 blocks 0..3 (f16)
///
/// Records of one 16-row tile follow each other along k. A q4_0 block in a file is the f16 scale and 16
/// bytes; byte j holds weight j in its low and weight j + 16 in its high nibble.

#include <cstdint>

#if defined(__CUDACC__)
#define MLXN_RECORD_FN __host__ __device__ inline
#else
#define MLXN_RECORD_FN inline
#endif

namespace mlxn::hopper {

inline constexpr int kRecordRows = 16;
inline constexpr int kRecordK = 128;
inline constexpr int kRecordScales = 1024;  // offset in bytes
inline constexpr int kRecordBytes = 1152;
inline constexpr int kRecordWords = 256;  // of quants
inline constexpr int kBlockBytes = 18;    // q4_0 in a file: 32 weights

/// Row and k inside a record of nibble `nibble` of word `word` (words as they lie in memory).
struct RecordPlace {
  int row;
  int k;
};
MLXN_RECORD_FN RecordPlace record_place(int word, int nibble) {
  const int plane = word / 128;
  const int lane = word / 4 % 32;
  const int step = word % 4;
  return {lane / 4 + 8 * (nibble % 2),
          plane * 64 + step * 16 + 2 * (lane % 4) + nibble / 4 + 8 * (nibble / 2 % 2)};
}

/// Quant of weight i (0..31) of a file block.
MLXN_RECORD_FN uint32_t block_quant(const uint8_t* block, int i) {
  const uint8_t byte = block[2 + i % 16];
  return i < 16 ? byte & 15u : byte >> 4;
}

/// Word `word` of the record of rows row0.. and columns k0.. of a matrix of file blocks.
MLXN_RECORD_FN uint32_t record_word(const uint8_t* blocks, int blocks_per_row, int row0, int k0, int word) {
  uint32_t packed = 0;
  for (int nibble = 0; nibble < 8; ++nibble) {
    const RecordPlace at = record_place(word, nibble);
    const int k = k0 + at.k;
    const uint8_t* block =
        blocks + (static_cast<long long>(row0 + at.row) * blocks_per_row + k / 32) * kBlockBytes;
    packed |= block_quant(block, k % 32) << (4 * nibble);
  }
  return packed;
}

/// Scale `index` (0..63, in the order of the record) of the same record, as f16 bits.
MLXN_RECORD_FN uint16_t record_scale(const uint8_t* blocks, int blocks_per_row, int row0, int k0, int index) {
  const int row = row0 + index / 8 + 8 * (index / 4 % 2);
  const uint8_t* block =
      blocks + (static_cast<long long>(row) * blocks_per_row + k0 / 32 + index % 4) * kBlockBytes;
  return static_cast<uint16_t>(block[0] | block[1] << 8);
}

}  // namespace mlxn::hopper
