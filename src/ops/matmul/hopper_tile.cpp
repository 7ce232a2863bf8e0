#include "ops/matmul/hopper_tile.h"

#include <algorithm>

#include "ops/matmul/hopper_vector.h"
#include "quant/gpu_weight.h"
#include "quant/records.h"

namespace mlxn::ops {
namespace {

using tile::Form;
using tile::Shape;

constexpr std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) noexcept { return (a + b - 1) / b; }

constexpr std::uint32_t kMaxSplits = 16;

/// Microseconds on an H200, fitted to launches of q4_0 (within 8 % where a plan is anywhere near the best).
struct Rates {
  double step;              ///< of 128 k of one block, all multiprocessors busy
  double wave;              ///< filling the pipeline and storing y, for each wave of blocks
  double parts, each_part;  ///< adding parts
  double unpack;            ///< how much of unpacking_of a step shows
};
constexpr Rates rates_of(const Shape& s) noexcept {
  if (s.form == Form::pair) return {1.291, 8.3, 0, 0, 0.35};
  if (s.tokens == 256) return {1.347, 6.0, 0, 0, 0.35};
  if (s.tokens == 128) return {0.668, 5.3, 1.5, 0.58, 0.8};
  if (s.tokens == 64) return {0.48, 4.1, 0.8, 0.2, 0.9};
  if (s.tokens == 32) return {0.38, 3.3, 0.7, 0.2, 1.0};
  if (s.few) return {0.23, 3.6, 0.8, 0.3, 0.9};
  return {0.33, 3.0, 1.15, 0.17, 1.0};
}

/// What a step of few tokens takes longer than q4_0's: on an H200 about 1.7 ns for every instruction that
/// half a record takes more, of which q4_0 takes 171. q3_K, q5_0, q5_1 and iq4_xs (weights made whole) are
/// counted, not measured; affine types are taken for q4_1 and q8_0.
struct Unpacking {
  double whole;      ///< operands are weights
  double by_record;  ///< Shape::by_record
};
constexpr Unpacking unpacking_of(DType type) noexcept {
  if (const auto affine = affine_info(type)) return {affine->bits == 8 ? 0.20 : 0.01, 0};
  switch (type) {
    case DType::q5_0:
    case DType::q5_1:
      return {0.10, 0};
    case DType::q2_K:
      return {0.07, 0};
    case DType::q3_K:
      return {0.17, 0.07};
    case DType::q4_K:
      return {0.07, 0};
    case DType::q5_K:
      return {0.20, 0.12};
    case DType::q6_K:
      return {0.23, 0.14};
    case DType::iq4_nl:
      return {0.20, 0};
    case DType::iq4_xs:
      return {0.33, 0.19};
    case DType::mxfp4:
      return {0.09, 0};
    case DType::q8_0:
      return {0.20, 0};  // reading
    default:
      return {0, 0};
  }
}

/// Microseconds that a launch may take on an H200, as far as forms, shapes and types differ in it.
double cost(DType type, const HopperTilePlan& plan, std::uint32_t multiprocessors) noexcept {
  const Shape& s = plan.shape;
  const Rates rates = rates_of(s);
  const std::uint32_t blocks = s.form == Form::tiles ? plan.args.row_tiles * plan.args.token_tiles
                                                     : plan.grid[0] * plan.grid[1] * plan.grid[2];
  const std::uint32_t places =
      s.form == Form::pair ? multiprocessors / 2 * 2 : multiprocessors * s.blocks_per_sm;
  const std::uint32_t steps = s.form == Form::tiles ? plan.args.steps : plan.args.split_steps;
  const double waves = ceil_div(blocks, places);
  double multiply = rates.step;
  // Idle multiprocessors leave bandwidth to those that multiply many tokens...
  if (s.tokens >= 128) multiply *= 0.84 + 0.16 * blocks / (waves * places);
  // ... and tiles of few tokens side by side fetch the same weights again (a guess: not measured).
  if (s.tokens < 128 && plan.args.token_tiles > 1) multiply *= 1.1;
  const double read = s.w_stage_bytes() / 33.3e3;  // a multiprocessor's share of 4.4 TB/s
  const Unpacking unpacking = unpacking_of(type);
  const double unpack = s.few || s.by_record != tile::Nesting::none ? unpacking.by_record : unpacking.whole;
  const double step = std::max(multiply + rates.unpack * unpack, read);
  const double parts =
      s.form == Form::parts && plan.splits > 1 ? rates.parts + rates.each_part * plan.splits : 0.0;
  return waves * (steps * step + rates.wave) + parts;
}

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
    MLXN_HOPPER_VECTOR_AFFINE_TYPES(MLXN_TILE_NAMES)
    default:
      return {};  // has no records: excluded by the contract
  }
#undef MLXN_TILE_NAMES
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
  if (shape.form == Form::parts && plan.splits > 1) {
    plan.workspace_bytes =
        std::uint64_t{tiles} * plan.splits * static_cast<std::uint64_t>(shape.rows()) * tile_tokens * 4;
    plan.counters = tiles;
  }

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

void HopperTilePlan::fuse(bool gated) noexcept {
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
  const std::uint64_t row_bytes = records.tile_records * format.bytes();
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
  HopperTilePlan best;
  double least = 0;
  for (int kind = 0; kind < tile::kKinds; ++kind) {
    const Shape shape = hopper_tile_shape(type, kind);
    // k in halves, or rounded otherwise than in other kernels.
    if (batch_invariant && (shape.form == Form::pair || shape.few || shape.by_record != tile::Nesting::none)) continue;
    const std::uint32_t most = shape.form == Form::parts && !batch_invariant ? kMaxSplits : 1;
    for (std::uint32_t splits = 1; splits <= most; ++splits) {
      HopperTilePlan plan = plan_hopper_shape(type, shape, m, n, k, splits, multiprocessors);
      if (shape.form == Form::parts && plan.splits != splits) continue;
      if (splits > 1 && plan.args.split_steps < 4) break;
      if (shape.form == Form::pair && plan.args.steps < 8) continue;
      const double us = cost(type, plan, multiprocessors);
      if (!best.kernel.empty() && us >= least) continue;
      plan.kernel = hopper_tile_name(type, kind);
      least = us;
      best = plan;
    }
  }
  return best;
}

}  // namespace mlxn::ops
