#include "quant/mlx.h"

#include <cstring>

namespace mlxn::quant {
namespace {

/// Eight nibbles to eight bytes.
std::uint64_t spread(std::uint64_t nibbles) noexcept {
  nibbles = (nibbles | nibbles << 16) & 0x0000FFFF0000FFFFu;
  nibbles = (nibbles | nibbles << 8) & 0x00FF00FF00FF00FFu;
  return (nibbles | nibbles << 4) & 0x0F0F0F0F0F0F0F0Fu;
}

/// 32 nibbles in order to 16 bytes of nibbles split in halves.
void split_nibbles(const std::uint32_t* codes, std::uint8_t* qs) noexcept {
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t bytes = spread(codes[i]) | spread(codes[i + 2]) << 4;
    std::memcpy(qs + 8 * i, &bytes, 8);
  }
}

/// Scales and biases of kWidth bytes each.
template <std::size_t kWidth, bool kHasBiases>
void pack(std::uint32_t group_words, bool nibbles, const std::uint32_t* codes, const std::uint8_t* scales, const std::uint8_t* biases,
          std::uint64_t groups, std::uint8_t* block) noexcept {
  for (std::uint64_t g = 0; g < groups; ++g) {
    std::memcpy(block, scales + g * kWidth, kWidth);
    block += kWidth;
    if constexpr (kHasBiases) {
      std::memcpy(block, biases + g * kWidth, kWidth);
      block += kWidth;
    }
    if (nibbles) {
      for (std::uint32_t i = 0; i < group_words; i += 4) split_nibbles(codes + i, block + 4 * i);
    } else {
      std::memcpy(block, codes, std::size_t{group_words} * 4);
    }
    codes += group_words;
    block += std::size_t{group_words} * 4;
  }
}

}  // namespace

void pack_mlx(DType type, const std::uint32_t* codes, const void* scales, const void* biases, std::uint64_t groups, void* blocks) noexcept {
  const auto* s = static_cast<const std::uint8_t*>(scales);
  const auto* b = static_cast<const std::uint8_t*>(biases);
  auto* to = static_cast<std::uint8_t*>(blocks);
  const auto affine = affine_info(type);
  if (!affine) return pack<1, false>(block_elems(type) / 8, true, codes, s, b, groups, to);
  const std::uint32_t words = affine->group * affine->bits / 32;
  if (affine->scales == DType::f32) return pack<4, true>(words, affine->bits == 4, codes, s, b, groups, to);
  pack<2, true>(words, affine->bits == 4, codes, s, b, groups, to);
}

}  // namespace mlxn::quant
