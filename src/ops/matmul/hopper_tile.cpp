#include "ops/matmul/hopper_tile.h"

#include <algorithm>

#include "quant/records.h"

namespace mlxn::ops {
namespace {

using tile::Form;
using tile::Shape;

constexpr std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) noexcept { return (a + b - 1) / b; }

constexpr std::uint32_t kMaxSplits = 16;

/// Microseconds that a launch may take on an H200, as far as forms and shapes differ in it: a step of 128 k
/// of one block, the filling of the pipeline and the storing of y for each wave of blocks, the adding of
/// parts.
double cost(const HopperTilePlan& plan, std::uint32_t multiprocessors) noexcept {
  const Shape& s = plan.shape;
  const double multiply = s.tokens == 256   ? 1.37
                          : s.tokens == 128 ? 0.72
                          : s.tokens == 64  ? 0.48
                          : s.tokens == 32  ? 0.34
                                            : 0.3;
  const double read = s.w_stage_bytes() / 33.3e3;  // a multiprocessor's share of 4.4 TB/s
  const double step = std::max(multiply, read);
  const std::uint32_t blocks = s.form == Form::tiles ? plan.args.row_tiles * plan.args.token_tiles
                                                     : plan.grid[0] * plan.grid[1] * plan.grid[2];
  const std::uint32_t places =
      s.form == Form::pair ? multiprocessors / 2 * 2 : multiprocessors * s.blocks_per_sm;
  const std::uint32_t steps = s.form == Form::tiles ? plan.args.steps : plan.args.split_steps;
  const double waves = ceil_div(blocks, places);
  const double wave =
      s.form == Form::tiles ? 1.0 : 2.0;  // tiles of a block follow each other without a gap in the copies
  const double parts = s.form == Form::pair ? 1.0
                       : plan.splits > 1    ? 1.0 + 0.004 * s.tokens * plan.splits
                                            : 0.0;
  return waves * (steps * step + wave) + parts;
}

}  // namespace

std::string_view hopper_tile_name(DType type, int kind) noexcept {
#define MLXN_TILE_NAMES(name)                                                                            \
  case DType::name: {                                                                                    \
    static constexpr std::string_view kNames[tile::kKinds] = {                                           \
        "matmul_hopper_tile16_" #name,  "matmul_hopper_tile32_" #name,  "matmul_hopper_tile64_" #name,   \
        "matmul_hopper_tile128_" #name, "matmul_hopper_tile256_" #name, "matmul_hopper_pair256_" #name}; \
    return kNames[kind];                                                                                 \
  }
  switch (type) {
    MLXN_TILE_NAMES(q4_0)
    MLXN_TILE_NAMES(q4_1)
    MLXN_TILE_NAMES(q5_0)
    MLXN_TILE_NAMES(q5_1)
    MLXN_TILE_NAMES(q8_0)
    MLXN_TILE_NAMES(q2_K)
    MLXN_TILE_NAMES(q3_K)
    MLXN_TILE_NAMES(q4_K)
    MLXN_TILE_NAMES(q5_K)
    MLXN_TILE_NAMES(q6_K)
    MLXN_TILE_NAMES(iq4_nl)
    MLXN_TILE_NAMES(iq4_xs)
    MLXN_TILE_NAMES(mxfp4)
    default:
      return {};  // has no records: excluded by the contract
  }
#undef MLXN_TILE_NAMES
}

Shape hopper_tile_shape(DType type, int kind) noexcept {
  const quant::RecordFormat format = quant::record_format(type);
  return tile::shape_of(kind, static_cast<int>(format.code_bytes() + format.row_bytes()));
}

HopperTilePlan plan_hopper_shape(DType type, const Shape& shape, std::uint32_t m, std::uint32_t n,
                                 std::uint32_t k, std::uint32_t splits,
                                 std::uint32_t multiprocessors) noexcept {
  const quant::RecordFormat format = quant::record_format(type);
  const quant::RecordGrid records = quant::record_grid(format, n, k);
  HopperTilePlan plan;
  plan.shape = shape;
  plan.threads = static_cast<std::uint32_t>(shape.threads());
  plan.dynamic_shared_bytes = static_cast<std::uint32_t>(shape.shared_bytes());

  HopperTileArgs& args = plan.args;
  const auto tile_tokens = static_cast<std::uint32_t>(shape.tokens);
  args.m = m;
  args.n = n;
  args.steps = static_cast<std::uint32_t>(records.tile_records) * (format.elems / quant::kRecordHalf);
  args.row_tiles = ceil_div(n, static_cast<std::uint32_t>(shape.rows()));
  args.token_tiles = ceil_div(m, tile_tokens);
  args.token_group = 2;
  args.prefetch = 2;
  if (shape.form == Form::pair) splits = 2;
  if (shape.form == Form::tiles) splits = 1;
  args.split_steps = ceil_div(args.steps, splits);
  plan.splits = shape.form == Form::pair ? 2 : ceil_div(args.steps, args.split_steps);
  const std::uint32_t tiles = args.row_tiles * args.token_tiles;
  switch (shape.form) {
    case Form::parts:
      plan.grid = {args.row_tiles, args.token_tiles, plan.splits};
      break;
    case Form::tiles:
      plan.grid = {std::min(tiles, multiprocessors), 1, 1};
      break;
    case Form::pair:
      plan.grid = {args.row_tiles * 2, args.token_tiles, 1};
      plan.cluster = 2;
      break;
  }
  if (shape.form == Form::parts && plan.splits > 1) {
    plan.workspace_bytes =
        std::uint64_t{tiles} * plan.splits * static_cast<std::uint64_t>(shape.rows()) * tile_tokens * 4;
    plan.counters = tiles;
  }

  const std::uint64_t row_bytes = records.tile_records * format.bytes();
  plan.map.element_bytes = 8;
  plan.map.columns = row_bytes / 8;
  plan.map.rows = records.tiles;
  plan.map.row_bytes = row_bytes;
  plan.map.box_columns = static_cast<std::uint32_t>(shape.box_columns());
  plan.map.box_rows = static_cast<std::uint32_t>(shape.rows()) / quant::kRecordRows;

  plan.stage.m = m;
  plan.stage.k = k;
  plan.stage.planes = args.steps * 2;
  plan.stage.tile_tokens = tile_tokens;
  plan.stage.counter_count = plan.counters;
  plan.stage_grid = args.token_tiles * tile_tokens;
  plan.image_bytes = std::uint64_t{plan.stage_grid} * plan.stage.planes * 128;
  plan.scale_bytes = std::uint64_t{plan.stage_grid} * 4;
  return plan;
}

HopperTilePlan plan_hopper_tile(DType type, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                                std::uint32_t multiprocessors) noexcept {
  HopperTilePlan best;
  double least = 0;
  for (int kind = 0; kind < tile::kKinds; ++kind) {
    const Shape shape = hopper_tile_shape(type, kind);
    const std::uint32_t most = shape.form == Form::parts ? kMaxSplits : 1;
    for (std::uint32_t splits = 1; splits <= most; ++splits) {
      HopperTilePlan plan = plan_hopper_shape(type, shape, m, n, k, splits, multiprocessors);
      if (shape.form == Form::parts && plan.splits != splits) continue;
      if (splits > 1 && plan.args.split_steps < 4) break;
      if (shape.form == Form::pair && plan.args.steps < 8) continue;
      const double us = cost(plan, multiprocessors);
      if (!best.kernel.empty() && us >= least) continue;
      plan.kernel = hopper_tile_name(type, kind);
      least = us;
      best = plan;
    }
  }
  return best;
}

}  // namespace mlxn::ops
