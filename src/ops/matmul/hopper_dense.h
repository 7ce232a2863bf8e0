#pragma once

#include <optional>
#include <string_view>

#include "mlxn/ops/matmul.h"
#include "ops/matmul/hopper_tile.h"

// Products of dense weights on Hopper's tensor cores, f16 or bf16, rows at multiples of 16 bytes.
//
//   weights  class  operands
//   f16      f16    x in f16, weights as they are
//   bf16     f16    x in f16; weights become f16, each row times a power of two that its largest allows
//                   (`exponents`), and lose bits only where they are 2^-31 of it or less
//   bf16     bf16   x in bf16, weights as they are
namespace mlxn::ops {

enum class DenseFormat : std::uint8_t { f16, bf16, bf16_narrow };
inline constexpr int kDenseFormats = 3;

/// Nothing where the tile kernels have no such product.
[[nodiscard]] constexpr std::optional<DenseFormat> dense_format(DType type, Numerics numerics) noexcept {
  if (type == DType::f16 && numerics == Numerics::f16) return DenseFormat::f16;
  if (type == DType::bf16 && numerics == Numerics::f16) return DenseFormat::bf16;
  if (type == DType::bf16 && numerics == Numerics::bf16) return DenseFormat::bf16_narrow;
  return std::nullopt;
}

/// kind: 0 .. tile::kDenseKinds - 1.
[[nodiscard]] std::string_view hopper_dense_name(DenseFormat format, int kind) noexcept;

[[nodiscard]] HopperTileRates hopper_dense_rates(DenseFormat format, int kind) noexcept;

/// m, n, k > 0; rows of weights are as far apart as in the prepared layout. As plan_hopper_tile.
[[nodiscard]] HopperTilePlan plan_hopper_dense(DenseFormat format, std::uint32_t m, std::uint32_t n,
                                               std::uint32_t k, std::uint32_t multiprocessors,
                                               bool batch_invariant = false) noexcept;
/// The plan of one kernel, as plan_hopper_shape.
[[nodiscard]] HopperTilePlan plan_dense_shape(DenseFormat format, const tile::Shape& shape, std::uint32_t m,
                                              std::uint32_t n, std::uint32_t k, std::uint32_t splits,
                                              std::uint32_t multiprocessors) noexcept;

}  // namespace mlxn::ops
