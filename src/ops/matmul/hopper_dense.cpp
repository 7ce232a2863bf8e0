#include "ops/matmul/hopper_dense.h"

#include <algorithm>

#include "quant/gpu_weight.h"

namespace mlxn::ops {
namespace {

using tile::Form;
using tile::Shape;

constexpr std::uint32_t kMaxSplits = 16;

/// Microseconds on an H200, fitted to launches of f16 and bf16 (within 10 %, and in the order of those near
/// the best).
struct Rates {
  double step;  ///< of 128 k of one block, all multiprocessors busy
  double wave;  ///< filling the pipeline and storing y, for each wave of blocks
};
constexpr Rates rates_of(DenseFormat format, const Shape& s) noexcept {
  const bool converts = format == DenseFormat::bf16;
  if (s.form == Form::pair) return {converts ? 1.55 : 1.54, 9.3};
  if (s.tokens == 256) return {1.65, 3.5};
  if (s.tokens == 128) return {converts ? 0.89 : 0.764, converts ? 8.0 : 9.5};
  // Steps of fewer tokens are a guess, the way of both operands from the L2 at the rate of 128 tokens:
  // reading the weights hides them wherever that was measured.
  if (s.tokens == 64) return {0.57, 4.5};
  if (s.tokens == 32) return {0.48, 1.5};
  return {0.43, 0.8};
}

/// Microseconds that a launch may take on an H200, as far as kernels and parts differ in it: the matrix
/// instructions or reading the weights once, of which each multiprocessor gets its share at most.
double cost(DenseFormat format, const HopperTilePlan& plan, std::uint32_t multiprocessors) noexcept {
  constexpr double kReadBytes = 4.3e6, kReadShare = 33.9e3;
  const Shape& s = plan.shape;
  const Rates rates = rates_of(format, s);
  const std::uint32_t blocks = s.form == Form::tiles ? plan.args.row_tiles * plan.args.token_tiles
                                                     : plan.grid[0] * plan.grid[1] * plan.grid[2];
  const std::uint32_t places = multiprocessors / plan.cluster * plan.cluster;
  const std::uint32_t steps = s.form == Form::tiles ? plan.args.steps : plan.args.split_steps;
  const std::uint32_t waves = (blocks + places - 1) / places;
  const double busy = static_cast<double>(blocks) / waves;
  double multiply = rates.step;
  // Idle multiprocessors leave clock and bandwidth to those that multiply many tokens.
  if (s.tokens >= 128) multiply *= 0.64 + 0.36 * busy / places;
  // Tiles of few tokens side by side fetch the same weights from the L2 (a guess: not measured).
  if (s.tokens < 128 && plan.args.token_tiles > 1) multiply *= 1.3;
  // Blocks of a wave share what they read where they multiply the same weights; a wave later it left the L2.
  const std::uint32_t passes = s.form == Form::tiles ? 1 : std::min(waves, plan.args.token_tiles);
  const double bytes = static_cast<double>(plan.map.rows) * static_cast<double>(plan.map.row_bytes) * passes;
  const double read = bytes / std::min(kReadShare * busy, kReadBytes);
  double parts = 0;
  if (s.form == Form::parts && plan.splits > 1) parts = 0.5 + s.tokens * (0.01 + 0.006 * plan.splits);
  return std::max<double>(waves * steps * multiply, read) + waves * rates.wave + parts;
}

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
    if (batch_invariant && shape.form == Form::pair) continue;  // k in halves, in other kernels not
    const std::uint32_t most = shape.form == Form::parts && !batch_invariant ? kMaxSplits : 1;
    for (std::uint32_t splits = 1; splits <= most; ++splits) {
      HopperTilePlan plan = plan_dense_shape(format, shape, m, n, k, splits, multiprocessors);
      if (shape.form == Form::parts && plan.splits != splits) continue;
      if (splits > 1 && plan.args.split_steps < 4) break;
      if (shape.form == Form::pair && plan.args.steps < 8) continue;
      const double us = cost(format, plan, multiprocessors);
      if (!best.kernel.empty() && us >= least) continue;
      plan.kernel = hopper_dense_name(format, kind);
      least = us;
      best = plan;
    }
  }
  return best;
}

}  // namespace mlxn::ops
