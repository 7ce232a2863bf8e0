#include "ops/matmul/hopper_dense.h"

#include <array>

#include "quant/gpu_weight.h"

namespace mlxn::ops {
namespace {

using tile::Shape;

/// By format and kind.
constexpr auto kRates = [] {
  std::array<std::array<HopperTileRates, tile::kDenseKinds>, kDenseFormats> rates{};
#define MLXN_TILE_READS(all, one)
#define MLXN_TILE_RATES(type, kind, ...)
#define MLXN_DENSE_RATES(format, kind, ...) rates[static_cast<std::size_t>(DenseFormat::format)][kind] = {__VA_ARGS__};
#include "ops/matmul/hopper_tile_rates.inc"
#undef MLXN_TILE_READS
#undef MLXN_TILE_RATES
#undef MLXN_DENSE_RATES
  return rates;
}();

}  // namespace

std::string_view hopper_dense_name(DenseFormat format, int kind) noexcept {
#define MLXN_DENSE_NAMES(name)                                                                           \
  case DenseFormat::name: {                                                                              \
    static constexpr std::string_view kNames[tile::kDenseKinds] = {                                      \
        "matmul_hopper_tile16_" #name,  "matmul_hopper_tile32_" #name,  "matmul_hopper_tile64_" #name,   \
        "matmul_hopper_tile128_" #name, "matmul_hopper_tile256_" #name, "matmul_hopper_pair256_" #name}; \
    return kNames[kind];                                                                                 \
  }
  switch (format) {
    MLXN_DENSE_NAMES(f16)
    MLXN_DENSE_NAMES(bf16)
    MLXN_DENSE_NAMES(bf16_narrow)
  }
#undef MLXN_DENSE_NAMES
  return {};
}

HopperTileRates hopper_dense_rates(DenseFormat format, int kind) noexcept {
  return kRates[static_cast<std::size_t>(format)][static_cast<std::size_t>(kind)];
}

HopperTilePlan plan_dense_shape(DenseFormat format, const Shape& shape, std::uint32_t m, std::uint32_t n,
                                std::uint32_t k, std::uint32_t splits,
                                std::uint32_t multiprocessors) noexcept {
  HopperTilePlan plan = plan_tiles(shape, m, n, k, (k + 127) / 128, splits, multiprocessors);
  // A wave of blocks reads least where its row tiles and token tiles are as many bytes.
  plan.args.token_group = 8;
  plan.args.prefetch = 1;
  plan.map.element_bytes = 2;
  plan.map.columns = k;
  plan.map.rows = n;
  plan.map.row_bytes = (std::uint64_t{k} * 2 + 15) / 16 * 16;
  plan.map.box_columns = 64;
  plan.map.box_rows = static_cast<std::uint32_t>(shape.rows());
  plan.map.swizzle128 = true;
  plan.map.planes = plan.map.box_planes = 1;
  plan.map.plane_bytes = plan.map.rows * plan.map.row_bytes;
  if (format == DenseFormat::bf16_narrow) plan.stage.rows_type = quant::kElementBf16;
  return plan;
}

HopperTilePlan plan_hopper_dense(DenseFormat format, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                                 std::uint32_t multiprocessors, bool batch_invariant) noexcept {
  return fastest_plan(
      tile::kDenseKinds, multiprocessors, batch_invariant,
      [&](int kind) {
        return HopperTileKernel{hopper_dense_name(format, kind), tile::dense_shape_of(kind), hopper_dense_rates(format, kind)};
      },
      [&](const Shape& shape, std::uint32_t splits) { return plan_dense_shape(format, shape, m, n, k, splits, multiprocessors); });
}

}  // namespace mlxn::ops
