#include "ops/matmul/hopper_tile.h"

#include <algorithm>
#include <array>

#include "ops/matmul/hopper_vector.h"
#include "quant/gpu_weight.h"
#include "quant/records.h"

namespace mlxn::ops {
namespace {

using tile::Form;
using tile::Shape;

constexpr std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) noexcept { return (a + b - 1) / b; }

/// By type and kind; kernels without a row in the table are no choice.
constexpr auto kRates = [] {
  std::array<std::array<HopperTileRates, tile::kKinds>, kDTypeCount> rates{};
#define MLXN_TILE_READS(all, one)
#define MLXN_TILE_RATES(type, kind, ...) rates[static_cast<std::size_t>(DType::type)][kind] = {__VA_ARGS__};
#define MLXN_DENSE_RATES(format, kind, ...)
#include "ops/matmul/hopper_tile_rates.inc"
#undef MLXN_TILE_READS
#undef MLXN_TILE_RATES
  return rates;
}();

/// GB/s of weights: of all multiprocessors, and the most of one.
struct Reads {
  int all, one;
};
constexpr Reads kReads = {
#define MLXN_TILE_READS(all, one) all, one
#define MLXN_TILE_RATES(type, kind, ...)
#include "ops/matmul/hopper_tile_rates.inc"
#undef MLXN_TILE_READS
#undef MLXN_TILE_RATES
#undef MLXN_DENSE_RATES
};

}  // namespace

std::string_view hopper_tile_name(DType type, int kind) noexcept {
#define MLXN_TILE_NAMES(name)                                                                            \
  case DType::name: {                                                                                    \
    static constexpr std::string_view kNames[tile::kKinds] = {                                           \
        "matmul_hopper_tile8_" #name,   "matmul_hopper_tile16_" #name,  "matmul_hopper_tile32_" #name,   \
        "matmul_hopper_tile64_" #name,  "matmul_hopper_tile128_" #name, "matmul_hopper_tile256_" #name,  \
        "matmul_hopper_pair256_" #name};                                                                 \
    return kNames[kind];                                                                                 \
  }
  switch (type) {
    MLXN_HOPPER_VECTOR_TYPES(MLXN_TILE_NAMES)
    default:
      return {};  // has no records: excluded by the contract
  }
#undef MLXN_TILE_NAMES
}

HopperTileRates hopper_tile_rates(DType type, int kind) noexcept {
  return kRates[static_cast<std::size_t>(type)][static_cast<std::size_t>(kind)];
}

HopperTileTerms hopper_tile_terms(const HopperTilePlan& plan, std::uint32_t multiprocessors) noexcept {
  const Shape& s = plan.shape;
  const std::uint32_t blocks = s.form == Form::tiles ? plan.args.row_tiles * plan.args.token_tiles
                                                     : plan.grid[0] * plan.grid[1] * plan.grid[2];
  const std::uint32_t places =
      multiprocessors / plan.cluster * plan.cluster * static_cast<std::uint32_t>(s.blocks_per_sm);
  const std::uint32_t waves = ceil_div(blocks, places);
  HopperTileTerms terms;
  terms.busy = static_cast<double>(blocks) / waves;
  terms.steps = static_cast<double>(waves) * (s.form == Form::tiles ? plan.args.steps : plan.args.split_steps);
  terms.filled = terms.steps * terms.busy / places;
  terms.beside = plan.args.token_tiles > 1 ? terms.steps : 0;
  terms.waves = waves;
  terms.splits = s.form == Form::parts && plan.splits > 1 ? plan.splits : 0;
  terms.alone = plan.args.paired != 0 ? 0 : terms.splits;
  // Blocks of a wave share what they read where they multiply the same weights; a wave later it left the L2.
  const std::uint32_t passes = s.form == Form::tiles ? 1 : std::min(waves, plan.args.token_tiles);
  terms.bytes = static_cast<double>(plan.map.rows) * static_cast<double>(plan.map.row_bytes) * passes;
  terms.read_us = 1e-3 * terms.bytes / std::min<double>(kReads.one * terms.busy, kReads.all);
  return terms;
}

HopperTilePlan plan_tiles(const Shape& shape, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                          std::uint32_t steps, std::uint32_t splits, std::uint32_t multiprocessors,
                          std::uint32_t whole_steps) noexcept {
  HopperTilePlan plan;
  plan.shape = shape;
  plan.threads = static_cast<std::uint32_t>(shape.threads());
  plan.dynamic_shared_bytes = static_cast<std::uint32_t>(shape.shared_bytes());
  plan.cluster = shape.form == Form::pair ? 2 : 1;

  HopperTileArgs& args = plan.args;
  const auto tile_tokens = static_cast<std::uint32_t>(shape.tokens);
  args.m = m;
  args.n = n;
  args.steps = steps;
  args.row_tiles = ceil_div(n, static_cast<std::uint32_t>(shape.rows()));
  args.token_tiles = ceil_div(m, tile_tokens);
  args.token_group = 2;
  args.prefetch = 2;
  if (shape.form == Form::pair) splits = 2;
  if (shape.form == Form::tiles) splits = 1;
  args.split_steps = ceil_div(ceil_div(args.steps, splits), whole_steps) * whole_steps;
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
      break;
  }
  // Two blocks that add up their sums, of half of the tokens each, leave half as much to the workspace and a quarter for the one that
  // comes last to read; of few sums that is not worth the wait for each other. H200, 4096x14336, us, alone / paired: q4_0 of 128 tokens
  // 27.9 / 26.4, of 64 18.5 / 17.7, of 16 (four parts) 13.1 / 13.4; f16 of 128 40.5 / 38.1, of 32 (two parts) 32.5 / 31.4.
  plan.pair_parts(shape.can_pair() && plan.splits % 2 == 0 && (plan.splits == 2 || shape.tokens >= 64));

  HopperStageArgs& stage = plan.stage;
  stage.m = m;
  stage.k = k;
  stage.planes = ceil_div(k, 64);
  stage.scale_count = args.token_tiles * tile_tokens;
  stage.rows_type = quant::kElementF16;
  plan.row_bytes = std::uint64_t{m} * stage.planes * 128;
  plan.scale_bytes = std::uint64_t{stage.scale_count} * 4;
  plan.stage_grid = m;
  gpu::TensorMapSpec& x_map = plan.x_map;
  x_map.element_bytes = 2;
  x_map.columns = 64;
  x_map.rows = m;
  x_map.row_bytes = std::uint64_t{stage.planes} * 128;
  x_map.planes = stage.planes;
  x_map.plane_bytes = 128;
  x_map.box_columns = 64;
  x_map.box_rows = static_cast<std::uint32_t>(shape.x_copy_tokens());
  x_map.box_planes = static_cast<std::uint32_t>(shape.x_planes);
  x_map.swizzle128 = true;
  return plan;
}

void HopperTilePlan::pair_parts(bool paired) noexcept {
  if (shape.form != Form::parts) return;
  cluster = paired ? 2 : 1;
  args.paired = paired ? 1 : 0;
  const std::uint32_t tiles = args.row_tiles * args.token_tiles, left = splits / cluster;
  counters = left > 1 ? tiles * cluster : 0;
  workspace_bytes = left > 1 ? std::uint64_t{tiles} * left * static_cast<std::uint64_t>(shape.rows() * shape.tokens) * 4 : 0;
}

void HopperTilePlan::fuse(bool gated) noexcept {
  pair_parts(false);
  if (shape.form == Form::tiles) grid = {args.row_tiles * args.token_tiles, 1, 1};
  if (!gated) return;
  // Tiles have rows of both halves: as many as they were.
  args.n /= 2;
  args.gate_rows = args.n;
  map.rows /= 2;
  map.box_rows /= 2;
  map.planes = map.box_planes = 2;
  map.plane_bytes = map.rows * map.row_bytes;
}

HopperTilePlan plan_hopper_shape(DType type, const Shape& shape, std::uint32_t m, std::uint32_t n,
                                 std::uint32_t k, std::uint32_t splits,
                                 std::uint32_t multiprocessors) noexcept {
  const quant::RecordFormat format = quant::record_format(type);
  const quant::RecordGrid records = quant::record_grid(format, n, k);
  const std::uint32_t record_steps = format.elems / quant::kRecordHalf;
  HopperTilePlan plan =
      plan_tiles(shape, m, n, k, static_cast<std::uint32_t>(records.tile_records) * record_steps, splits,
                 multiprocessors, record_steps);
  const std::uint64_t row_bytes = records.tile_bytes;  // what a cut record lacks arrives as zeros
  plan.map.element_bytes = 8;
  plan.map.columns = row_bytes / 8;
  plan.map.rows = records.tiles;
  plan.map.row_bytes = row_bytes;
  plan.map.box_columns = static_cast<std::uint32_t>(shape.box_columns());
  plan.map.box_rows = static_cast<std::uint32_t>(shape.rows()) / quant::kRecordRows;
  plan.map.planes = plan.map.box_planes = 1;
  plan.map.plane_bytes = plan.map.rows * row_bytes;
  return plan;
}

HopperTilePlan plan_hopper_tile(DType type, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                                std::uint32_t multiprocessors, bool batch_invariant) noexcept {
  return fastest_plan(
      tile::kKinds, multiprocessors, batch_invariant,
      [&](int kind) {
        return HopperTileKernel{hopper_tile_name(type, kind), hopper_tile_shape(type, kind), hopper_tile_rates(type, kind)};
      },
      [&](const Shape& shape, std::uint32_t splits) { return plan_hopper_shape(type, shape, m, n, k, splits, multiprocessors); });
}

}  // namespace mlxn::ops
