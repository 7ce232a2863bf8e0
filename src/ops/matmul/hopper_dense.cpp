#include "ops/matmul/hopper_dense.h"

#include <array>

#include "quant/gpu_weight.h"

namespace mlxn::ops {
namespace {

using tile::Form;
using tile::Shape;

constexpr std::uint32_t kMaxSplits = 16;

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
  HopperTilePlan best;
  double least = 0;
  for (int kind = 0; kind < tile::kDenseKinds; ++kind) {
    const Shape shape = tile::dense_shape_of(kind);
    const HopperTileRates rates = hopper_dense_rates(format, kind);
    if (rates.step == 0) continue;
    if (batch_invariant && shape.form == Form::pair) continue;  // k in halves, in other kernels not
    const std::uint32_t most = shape.form == Form::parts && !batch_invariant ? kMaxSplits : 1;
    for (std::uint32_t splits = 1; splits <= most; ++splits) {
      HopperTilePlan plan = plan_dense_shape(format, shape, m, n, k, splits, multiprocessors);
      if (shape.form == Form::parts && plan.splits != splits) continue;
      if (splits > 1 && (plan.args.split_steps < 4 || plan.grid[0] * plan.grid[1] * plan.grid[2] > 2 * multiprocessors)) break;
      if (shape.form == Form::pair && plan.args.steps < 8) continue;
      const double us = hopper_tile_us(rates, hopper_tile_terms(plan, multiprocessors));
      if (!best.kernel.empty() && us >= least) continue;
      plan.kernel = hopper_dense_name(format, kind);
      least = us;
      best = plan;
    }
  }
  return best;
}

}  // namespace mlxn::ops
