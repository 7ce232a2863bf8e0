#include "quant/records.h"

#include <cstring>

#include "quant/block_fields.h"

namespace mlxn::quant {
namespace {

/// Calls each(block of the file, row in its tile, block in its record, the record's byte) for every block of the matrix [n, k].
template <class Each>
void for_each_block(const RecordFormat& format, std::int64_t n, std::int64_t k, const Each& each) {
  const std::uint64_t row_blocks = static_cast<std::uint64_t>(k) / format.block_elems;
  const RecordGrid grid = record_grid(format, n, k);
  for (std::uint64_t row = 0; row < static_cast<std::uint64_t>(n); ++row)
    for (std::uint64_t b = 0; b < row_blocks; ++b)
      each(row * row_blocks + b, static_cast<std::uint32_t>(row % kRecordRows), static_cast<std::uint32_t>(b % format.blocks()),
           row / kRecordRows * grid.tile_bytes + b / format.blocks() * format.bytes());
}

/// The parts of a block: in the file's block and in the record. Calls code(mask, flip, byte, shift, to byte, to shift) for every
/// code and bytes(from, to, count) for every area.
template <class Code, class Bytes>
void for_each_part(DType type, const RecordFormat& format, std::uint32_t row, std::uint32_t block, const Code& code, const Bytes& bytes) {
  const auto fields = block_fields(type);
  for (std::uint32_t p = 0; p < 2; ++p) {
    const RecordPlane& plane = format.planes[p];
    if (plane.bits == 0) continue;
    const std::uint32_t per = 8 / plane.bits;
    for (std::uint32_t e = 0; e < format.block_elems; ++e) {
      const std::uint32_t from = fields[plane.field].offset + plane.from + e / (plane.run * per) * plane.run + e % plane.run;
      const std::uint32_t k = block * format.block_elems + e;
      const RecordPlace to = record_place(plane, row, k % kRecordHalf);
      code((1u << plane.bits) - 1, plane.flip, from, e / plane.run % per * plane.bits,
           format.plane_offset(k / kRecordHalf, p) + to.byte, to.shift);
    }
  }
  for (std::uint32_t a = 0; a < 2; ++a) {
    const RecordArea& area = format.areas[a];
    if (area.bytes == 0) continue;
    bytes(fields[area.field].offset + area.from, format.area_offset(a) + record_area_place(area.bytes, format.blocks(), row, block),
          area.bytes);
  }
}

}  // namespace

void pack_records(DType type, const void* blocks, std::int64_t n, std::int64_t k, void* records) noexcept {
  const RecordFormat format = record_format(type);
  std::memset(records, 0, record_grid(format, n, k).bytes());
  for_each_block(format, n, k, [&](std::uint64_t at, std::uint32_t row, std::uint32_t block, std::uint64_t record_at) {
    const auto* from = static_cast<const std::uint8_t*>(blocks) + at * block_bytes(type);
    auto* record = static_cast<std::uint8_t*>(records) + record_at;
    for_each_part(
        type, format, row, block,
        [&](std::uint32_t mask, std::uint32_t flip, std::uint32_t byte, std::uint32_t shift, std::uint32_t to, std::uint32_t to_shift) {
          const std::uint32_t bits = ((from[byte] >> shift) ^ flip) & mask;
          record[to] = static_cast<std::uint8_t>(record[to] | bits << to_shift);
        },
        [&](std::uint32_t byte, std::uint32_t to, std::uint32_t count) { std::memcpy(record + to, from + byte, count); });
  });
}

void unpack_records(DType type, const void* records, std::int64_t n, std::int64_t k, void* blocks) noexcept {
  const RecordFormat format = record_format(type);
  for_each_block(format, n, k, [&](std::uint64_t at, std::uint32_t row, std::uint32_t block, std::uint64_t record_at) {
    auto* to_block = static_cast<std::uint8_t*>(blocks) + at * block_bytes(type);
    const auto* record = static_cast<const std::uint8_t*>(records) + record_at;
    std::memset(to_block, 0, block_bytes(type));
    for_each_part(
        type, format, row, block,
        [&](std::uint32_t mask, std::uint32_t flip, std::uint32_t byte, std::uint32_t shift, std::uint32_t to, std::uint32_t to_shift) {
          const std::uint32_t bits = ((record[to] >> to_shift) ^ flip) & mask;
          to_block[byte] = static_cast<std::uint8_t>(to_block[byte] | bits << shift);
        },
        [&](std::uint32_t byte, std::uint32_t to, std::uint32_t count) { std::memcpy(to_block + byte, record + to, count); });
  });
}

}  // namespace mlxn::quant
