#pragma once

#include <array>
#include <cstdint>

#include "mlxn/dtype.h"

// Weight records for Hopper's tensor cores (docs/hopper_layout.md): the bits of the file's blocks in another order.
//
// A record is 16 rows x 128 k, of types with super-blocks 16 x 256. Records of the same 16 rows, a tile, follow each other along k,
// then come the next 16 rows. Rows past n and k past the end are zero bytes, which are zeros in every type.
//
//   record of 128 k: row data | second plane | first plane
//   record of 256 k: codes of the first 128 k | row data | codes of the other 128 k
//
// so that either half of a large record is, with the row data, one run of bytes, and a small one can end early: the last of a tile
// has of its first plane only the strips that k reaches, 64 k each of 4 bits, 32 of 8. Codes are one or two planes of bits; row data
// are one or two areas of whatever else the blocks hold, byte for byte.
namespace mlxn::quant {

inline constexpr std::uint32_t kRecordRows = 16;
inline constexpr std::uint32_t kRecordHalf = 128;  ///< k of a plane
inline constexpr std::uint32_t kRecordStrip = 512;   ///< bytes of a plane that a warp loads at once; the next k's come behind

/// The low or the high bits of the codes. In the file, element e of a block has its bits in field `field` of the block
/// (block_fields.h), byte from + e / (run * per) * run + e % run, shifted left by e / run % per * bits, per = 8 / bits.
struct RecordPlane {
  std::uint32_t bits = 0;  ///< 1, 2, 4 or 8; 0: no plane
  std::uint32_t field = 0, from = 0, run = 1;
  std::uint32_t flip = 0;  ///< what the file's bits are xored with: codes count from zero up
  bool rows_apart = false;  ///< of 4 bits that name values of a table: see record_place
  [[nodiscard]] constexpr std::uint32_t bytes() const noexcept { return kRecordRows * kRecordHalf * bits / 8; }
  /// k of a strip, of 4 or 8 bits.
  [[nodiscard]] constexpr std::uint32_t strip_elems() const noexcept { return kRecordStrip * 8 / (kRecordRows * bits); }
};
/// `bytes` bytes of field `field`, from byte `from` on, of every block.
struct RecordArea {
  std::uint32_t field = 0, from = 0, bytes = 0;  ///< 0 bytes: no area
};

struct RecordFormat {
  std::uint32_t block_elems = 0;  ///< 0: the type has no records
  std::uint32_t elems = 0;        ///< along k
  std::array<RecordPlane, 2> planes{};
  std::array<RecordArea, 2> areas{};

  [[nodiscard]] constexpr explicit operator bool() const noexcept { return block_elems != 0; }
  [[nodiscard]] constexpr std::uint32_t blocks() const noexcept { return elems / block_elems; }
  [[nodiscard]] constexpr std::uint32_t code_bytes() const noexcept { return planes[0].bytes() + planes[1].bytes(); }  ///< of 128 k
  [[nodiscard]] constexpr std::uint32_t row_bytes() const noexcept { return kRecordRows * blocks() * (areas[0].bytes + areas[1].bytes); }
  [[nodiscard]] constexpr std::uint32_t bytes() const noexcept { return elems / kRecordHalf * code_bytes() + row_bytes(); }
  [[nodiscard]] constexpr bool has_halves() const noexcept { return elems > kRecordHalf; }
  [[nodiscard]] constexpr std::uint32_t half_step() const noexcept { return code_bytes() + row_bytes(); }  ///< bytes from half to half
  /// Where plane p of half h begins.
  [[nodiscard]] constexpr std::uint32_t plane_offset(std::uint32_t h, std::uint32_t p) const noexcept {
    if (!has_halves()) return row_bytes() + (p == 0 ? planes[1].bytes() : 0);
    return h * half_step() + (p == 0 ? 0 : planes[0].bytes());
  }
  /// Where area a begins.
  [[nodiscard]] constexpr std::uint32_t area_offset(std::uint32_t a) const noexcept {
    return (has_halves() ? code_bytes() : 0) + (a == 0 ? 0 : kRecordRows * blocks() * areas[0].bytes);
  }
  /// Of the records of 16 rows of k elements, a multiple of the block; the last one may be cut.
  [[nodiscard]] constexpr std::uint64_t tile_bytes(std::int64_t k) const noexcept {
    const auto whole = static_cast<std::uint64_t>(k) / elems, left = static_cast<std::uint64_t>(k) % elems;
    if (left == 0) return whole * bytes();
    const std::uint32_t strip = planes[0].strip_elems();
    return whole * bytes() + plane_offset(0, 0) + (left + strip - 1) / strip * kRecordStrip;
  }
};

[[nodiscard]] constexpr RecordFormat record_format(DType type) noexcept {
  if (const auto affine = affine_info(type)) {
    if (affine->scales == DType::f32) return {};  // no kernel of Hopper's own reads them
    return {affine->group, 128, {{{affine->bits, 1, 0, 16}, {}}}, {{{0, 0, 4}, {}}}};
  }
  switch (type) {
    case DType::q4_0: return {32, 128, {{{4, 1, 0, 16}, {}}}, {{{0, 0, 2}, {}}}};
    case DType::iq4_nl: return {32, 128, {{{4, 1, 0, 16, 0, true}, {}}}, {{{0, 0, 2}, {}}}};
    case DType::q5_0: return {32, 128, {{{4, 2, 0, 16}, {1, 1, 0, 1}}}, {{{0, 0, 2}, {}}}};
    case DType::q5_1: return {32, 128, {{{4, 1, 0, 16}, {1, 0, 4, 1}}}, {{{0, 0, 4}, {}}}};
    case DType::q8_0: return {32, 128, {{{8, 1, 0, 32, 0x80}, {}}}, {{{0, 0, 2}, {}}}};
    case DType::mxfp4: return {32, 128, {{{4, 1, 0, 16, 0, true}, {}}}, {{{0, 0, 1}, {}}}};
    case DType::q2_K: return {256, 256, {{{2, 1, 0, 32}, {}}}, {{{0, 0, 16}, {2, 0, 4}}}};
    case DType::q3_K: return {256, 256, {{{2, 1, 0, 32}, {1, 0, 0, 32}}}, {{{2, 0, 12}, {3, 0, 2}}}};
    case DType::q4_K: return {256, 256, {{{4, 1, 0, 32}, {}}}, {{{0, 0, 16}, {}}}};
    case DType::q5_K: return {256, 256, {{{4, 2, 0, 32}, {1, 1, 0, 32}}}, {{{0, 0, 16}, {}}}};
    case DType::q6_K: return {256, 256, {{{4, 0, 0, 64}, {2, 1, 0, 32}}}, {{{2, 0, 16}, {3, 0, 2}}}};
    case DType::iq4_xs: return {256, 256, {{{4, 1, 0, 16, 0, true}, {}}}, {{{0, 0, 8}, {}}}};
    default: return {};
  }
}

/// Bytes and bits of one code in a plane of 16 rows x 128 k.
struct RecordPlace {
  std::uint32_t byte, shift;
};

/// row 0..15, k 0..127. Lane 4 g + t of a warp owns rows g and g + 8 and, in every step of 16 k, k = 2t, 2t + 8, 2t + 1, 2t + 9:
/// bytes 0..3 of its words. Per step: of 4 bits half a byte (low: row g), of 2 bits a quarter (step pairs (s, g), (s, g + 8),
/// (s + 1, g), (s + 1, g + 8)), of 1 bit an eighth (bit 2 i: step i of four, row g; bit 2 i + 1: row g + 8), of 8 bits two words
/// (row g, row g + 8). A lane's words lie in fours, those of 1 bit in twos. If rows_apart, k 2t, 2t + 1, 2t + 8, 2t + 9 of row g are
/// the half bytes 0..3 of a word, as selectors of a byte permute, and those of row g + 8 the half bytes 4..7: a byte names two
/// neighbours.
[[nodiscard]] constexpr RecordPlace record_place(const RecordPlane& plane, std::uint32_t row, std::uint32_t k) noexcept {
  const std::uint32_t bits = plane.bits;
  const std::uint32_t lane = row % 8 * 4 + k % 8 / 2, upper = row / 8, step = k / 16;
  const std::uint32_t at = k % 16 / 8 + k % 2 * 2;  // of the four k
  const std::uint32_t words = bits == 1 ? 2 : 4;  // of a lane beside each other
  const std::uint32_t steps = 4 / bits > 0 ? 4 / bits : 1;  // that share a word
  const std::uint32_t word = bits == 8 ? step * 2 + upper : step / steps;
  const std::uint32_t first = word / words * (32 * words * 4) + lane * words * 4 + word % words * 4;
  if (plane.rows_apart) return {first + upper * 2 + k % 16 / 8, k % 2 * 4};
  return {first + at, bits == 8 ? 0 : step % steps * 2 * bits + upper * bits};
}

/// Where a block's share of an area of `bytes` bytes a block lies: row g is followed by row g + 8. block: of the record's `blocks`.
[[nodiscard]] constexpr std::uint32_t record_area_place(std::uint32_t bytes, std::uint32_t blocks, std::uint32_t row,
                                                        std::uint32_t block) noexcept {
  return ((row % 8 * 2 + row / 8) * blocks + block) * bytes;
}

/// The records that hold a matrix [n, k].
struct RecordGrid {
  std::uint64_t tiles = 0;         ///< of 16 rows
  std::uint64_t tile_records = 0;  ///< along k, the cut one included
  std::uint64_t tile_bytes = 0;    ///< from tile to tile
  [[nodiscard]] constexpr std::uint64_t bytes() const noexcept { return tiles * tile_bytes; }
};
[[nodiscard]] constexpr RecordGrid record_grid(const RecordFormat& format, std::int64_t n, std::int64_t k) noexcept {
  return {(static_cast<std::uint64_t>(n) + kRecordRows - 1) / kRecordRows, (static_cast<std::uint64_t>(k) + format.elems - 1) / format.elems,
          format.tile_bytes(k)};
}

/// The file's blocks of a matrix [n, k], k a multiple of the block, as record_grid(...).bytes() bytes of records, and back: plain
/// loops, for tests and for what is small. The type must have records.
void pack_records(DType type, const void* blocks, std::int64_t n, std::int64_t k, void* records) noexcept;
void unpack_records(DType type, const void* records, std::int64_t n, std::int64_t k, void* blocks) noexcept;

static_assert([] {
  for (int i = 0; i < kDTypeCount; ++i) {
    const RecordFormat format = record_format(static_cast<DType>(i));
    if (!format) continue;
    if (format.bytes() % 16 != 0 || format.half_step() % 16 != 0) return false;  // as bulk copies want
    // Is never cut, or between strips.
    if (format.has_halves() ? format.block_elems != format.elems : format.planes[0].bits < 4) return false;
    for (std::int64_t k = format.block_elems; k <= format.elems; k += format.block_elems)
      if (format.tile_bytes(k) % 16 != 0) return false;
  }
  return true;
}());

}  // namespace mlxn::quant
