#pragma once

#include <array>
#include <cstdint>

#include "mlxn/dtype.h"
#include "quant/blocks.h"

namespace mlxn::quant {

/// A run of a block's bytes that kernels of a GPU load together.
struct BlockField {
  std::uint32_t offset = 0, bytes = 0;
};
inline constexpr int kMaxBlockFields = 4;

/// The fields of a weight type's blocks in the order of their bytes, none left out; those behind the last are empty. The
/// formats of quant/kernel_decode.h know them by their numbers.
[[nodiscard]] constexpr std::array<BlockField, kMaxBlockFields> block_fields(DType type) noexcept {
  if (const auto affine = affine_info(type)) {  // scale and bias, qs
    const std::uint32_t pair = affine->scales == DType::f32 ? 8 : 4;
    return {{{0, pair}, {pair, affine->group * affine->bits / 8}}};
  }
  switch (type) {
    case DType::f32: return {{{0, 4}}};
    case DType::f16:
    case DType::bf16: return {{{0, 2}}};
    case DType::q4_0:
    case DType::iq4_nl: return {{{0, 2}, {2, 16}}};                  // d, qs
    case DType::q5_0: return {{{0, 2}, {2, 4}, {6, 16}}};            // d, qh, qs
    case DType::q5_1: return {{{0, 8}, {8, 16}}};                    // d, m and qh, qs
    case DType::q8_0: return {{{0, 2}, {2, 32}}};                    // d, qs
    case DType::q2_K: return {{{0, 16}, {16, 64}, {80, 4}}};         // scales, qs, d and dmin
    case DType::q3_K: return {{{0, 32}, {32, 64}, {96, 12}, {108, 2}}};    // hmask, qs, scales, d
    case DType::q4_K: return {{{0, 16}, {16, 128}}};                 // d, dmin and scales, qs
    case DType::q5_K: return {{{0, 16}, {16, 32}, {48, 128}}};       // d, dmin and scales, qh, qs
    case DType::q6_K: return {{{0, 128}, {128, 64}, {192, 16}, {208, 2}}};  // ql, qh, scales, d
    case DType::iq4_xs: return {{{0, 8}, {8, 128}}};                 // d and scales, qs
    case DType::mxfp4: return {{{0, 1}, {1, 16}}};                   // e, qs
    default: return {};
  }
}

static_assert([] {
  for (int i = 0; i < kDTypeCount; ++i) {
    std::uint32_t end = 0;
    for (const BlockField& field : block_fields(static_cast<DType>(i))) {
      if (field.bytes == 0) break;
      if (field.offset != end) return false;
      end += field.bytes;
    }
  }
  return true;
}());

}  // namespace mlxn::quant
