#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxn::gpu {

/// A driver's description of a matrix that tensor copies (cp.async.bulk.tensor) move boxes of; a kernel parameter. nvcc knows
/// it as CUtensorMap.
struct alignas(64) TensorMap {
  std::byte bytes[128];
};

/// `rows` rows of `columns` elements, `row_bytes` apart. A copy moves box_rows x box_columns of them; elements outside arrive as
/// zero. Base and row_bytes are multiples of 16, the box's sides at most 256, a row of it a multiple of 16 bytes, at most 128
/// with the swizzle. With planes, so many of these, `plane_bytes` apart (a multiple of 16; they may lie between each other's rows),
/// and a copy moves box_planes boxes, one behind the other.
struct TensorMapSpec {
  std::uint32_t element_bytes = 8;  ///< 2 or 8
  const std::byte* base = nullptr;
  std::uint64_t columns = 0, rows = 0, row_bytes = 0;
  std::uint32_t box_columns = 0, box_rows = 0;
  std::uint64_t planes = 0, plane_bytes = 0;  ///< 0: a matrix
  std::uint32_t box_planes = 0;
  bool swizzle128 = false;  ///< the 16-byte pieces of a 128-byte row change places as wgmma wants it
};

}  // namespace mlxn::gpu
