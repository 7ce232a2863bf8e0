#pragma once

#include "portable/args.h"

namespace mlxn {
namespace quant {

/// Types of plain elements, as launch structs name them.
constexpr uint32_t kElementF32 = 0;
constexpr uint32_t kElementF16 = 1;
constexpr uint32_t kElementBf16 = 2;

/// A matrix of weights as the portable kernels find it, in the layout of the file or in that of prepared weights: field f (see
/// block_fields.h) of block b of row r begins at data + offset[f] + (r * row_blocks + b) * step[f]. Elements that are no
/// blocks count as blocks of one.
struct GpuWeight {
  In<uint8_t> data;
  int64_t row_blocks;
  int64_t offset[4];
  uint32_t step[4];
  uint32_t even;  ///< every field of two bytes or more begins at an even address
  uint16_t scale_type;   ///< of affine types: what scale and bias are, kElementF32...
  uint16_t group_shift;  ///< of affine types: a block is 32 << group_shift elements
};
static_assert(sizeof(GpuWeight) == 72, "the same on every device");

}  // namespace quant
}  // namespace mlxn
