#pragma once

#include <cstdint>

#include "base/cpu_features.h"
#include "mlxn/dtype.h"

/// The prepared layout of weights on a CPU: sixteen rows side by side.
///
/// The rows of a matrix are taken in groups of 16, the last group filled up with copies of its last row. Along k a group is
/// cut into chunks of 256 elements. A block of a row is seen as dwords, as they lie in the file, and a dword of the 16 rows
/// becomes one 64-byte vector, row r in lane r: a plain transposition, so nothing of a value can change and rows can be
/// read back. A two-byte scale (or the exponent byte of mxfp4) that stands outside the dwords goes to the front of the
/// chunk, 16 rows side by side:
///
///   chunk = [scale of block 0, rows 0..15] [scale of block 1] ... padding to 64 | dwords of block 0 | dwords of block 1 | ...
///
/// Four consecutive codes of a row thus share a lane: what an integer dot product of four bytes wants. Growth against the
/// file: 32 bytes in 1760 (q3_K) and 3360 (q6_K), nothing for the others. Dense rows are cut into blocks of 16 elements,
/// zeros beyond k.
namespace mlxn::rows16 {

inline constexpr std::int64_t kRows = 16;
inline constexpr std::int64_t kChunkElems = 256;

/// How the blocks of a type are cut.
struct Format {
  int block_elems;
  int block_bytes;
  int first;        ///< byte of the first dword
  int dwords;       ///< dwords in a row from there on
  int scale_bytes;  ///< width of the scale outside the dwords: 0, 1 or 2
  int scale_at;     ///< its byte
};

[[nodiscard, gnu::always_inline]] inline constexpr Format format(DType type) {
  if (const auto affine = affine_info(type)) {
    const int bytes = static_cast<int>(affine->group * affine->bits / 8) + (affine->scales == DType::f32 ? 8 : 4);
    return {static_cast<int>(affine->group), bytes, 0, bytes / 4, 0, 0};
  }
  switch (type) {
    case DType::f32: return {16, 64, 0, 16, 0, 0};
    case DType::f16:
    case DType::bf16: return {16, 32, 0, 8, 0, 0};
    case DType::q4_0:
    case DType::iq4_nl: return {32, 18, 2, 4, 2, 0};
    case DType::q5_0: return {32, 22, 2, 5, 2, 0};
    case DType::q5_1: return {32, 24, 0, 6, 0, 0};
    case DType::q8_0: return {32, 34, 2, 8, 2, 0};
    case DType::q2_K: return {256, 84, 0, 21, 0, 0};
    case DType::q3_K: return {256, 110, 0, 27, 2, 108};
    case DType::q4_K: return {256, 144, 0, 36, 0, 0};
    case DType::q5_K: return {256, 176, 0, 44, 0, 0};
    case DType::q6_K: return {256, 210, 0, 52, 2, 208};
    case DType::iq4_xs: return {256, 136, 0, 34, 0, 0};
    case DType::mxfp4: return {32, 17, 1, 4, 1, 0};
    default: return {};
  }
}

/// Which dword of a block stands as vector i. The order is that in which kernels read, so that memory is one stream: scales
/// first, then low and high bits of the same codes by turns where a type keeps them apart.
[[nodiscard, gnu::always_inline]] inline constexpr int source_dword(DType type, int i) {
  switch (type) {
    case DType::q2_K: return (i + 20) % 21;  // 16 scales, codes, {d, dmin} -> {d, dmin} first
    case DType::q3_K: {                      // 8 high, 16 low, 3 scales -> scales, 8 pairs, 8 low
      const int c = i - 3;
      return c < 0 ? 24 + i : c < 16 ? (c % 2 == 0 ? 8 + c / 2 : c / 2) : c;
    }
    case DType::q5_K: {  // 4 scales, 8 high, 32 low -> scales, 8 pairs, 24 low
      const int c = i - 4;
      return c < 0 || c >= 16 ? i : c % 2 == 0 ? 12 + c / 2 : 4 + c / 2;
    }
    case DType::q6_K: {  // 32 low, 16 high, 4 scales -> scales, 2 x (8 pairs, 8 low)
      const int c = (i - 4) % 24, half = (i - 4) / 24;
      return i < 4 ? 48 + i : c >= 16 ? 16 * half + c - 8 : c % 2 == 0 ? 16 * half + c / 2 : 32 + 8 * half + c / 2;
    }
    default: return i;
  }
}
[[nodiscard, gnu::always_inline]] inline constexpr std::int64_t blocks(const Format& f, std::int64_t elems) {
  return (elems + f.block_elems - 1) / f.block_elems;
}
/// Bytes of the scales at the front of a chunk of n blocks.
[[nodiscard, gnu::always_inline]] inline constexpr std::int64_t scales_bytes(const Format& f, std::int64_t n) {
  return (n * f.scale_bytes * kRows + 63) / 64 * 64;
}
[[nodiscard, gnu::always_inline]] inline constexpr std::int64_t chunk_bytes(const Format& f, std::int64_t elems) {
  const std::int64_t n = blocks(f, elems);
  return scales_bytes(f, n) + n * f.dwords * 64;
}
/// Bytes of 16 rows of k elements. The first chunks of a group are the group of fewer elements.
[[nodiscard, gnu::always_inline]] inline constexpr std::int64_t group_bytes(const Format& f, std::int64_t k) {
  return k / kChunkElems * chunk_bytes(f, kChunkElems) + (k % kChunkElems ? chunk_bytes(f, k % kChunkElems) : 0);
}
[[nodiscard, gnu::always_inline]] inline constexpr std::int64_t matrix_bytes(const Format& f, std::int64_t n, std::int64_t k) {
  return (n + kRows - 1) / kRows * group_bytes(f, k);
}
/// Bytes of k elements of a row as they lie in the file.
[[nodiscard, gnu::always_inline]] inline constexpr std::int64_t row_bytes(const Format& f, std::int64_t k) {
  return f.block_elems == 16 ? k * f.block_bytes / 16 : k / f.block_elems * f.block_bytes;
}

/// Lays out k elements of 16 rows. k starts at a chunk; rows[r] points at its first block.
using PackGroup = void (*)(const std::uint8_t* const* rows, std::int64_t k, std::uint8_t* group);
/// The packer of a type compiled for an instruction set, which this machine must have.
[[nodiscard]] PackGroup packer(DType type, CpuIsa isa) noexcept;

/// Lays out groups [begin, end) of a matrix [n, k]; groups are independent, so threads may share a matrix.
void pack_groups(DType type, const void* source, std::int64_t n, std::int64_t k, std::int64_t begin, std::int64_t end,
                 void* prepared) noexcept;
/// Gives the bytes of elements [0, k) of one row back, as they lay in the file.
void unpack_row(DType type, const void* prepared, std::int64_t k, std::int64_t row, void* bytes) noexcept;
/// out[i] = the exact f32 value of element i of row `row`.
void decode_row(DType type, const void* prepared, std::int64_t k, std::int64_t row, float* out) noexcept;

namespace scalar { PackGroup packer(DType type) noexcept; }
namespace avx2 { PackGroup packer(DType type) noexcept; }
namespace avx512 { PackGroup packer(DType type) noexcept; }
namespace neon { PackGroup packer(DType type) noexcept; }

}  // namespace mlxn::rows16
