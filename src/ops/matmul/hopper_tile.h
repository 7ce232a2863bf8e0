#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "backends/gpu/tensor_map.h"
#include "mlxn/dtype.h"
#include "ops/matmul/hopper_tile_args.h"
#include "ops/matmul/hopper_tile_shape.h"
#include "quant/records.h"

// How a product of weight records, or of dense weights (hopper_dense.h), is launched on Hopper's tensor
// cores. Two kernels: the staging of x (HopperStageArgs), unless the product can read x where it lies, then
// the product (HopperTileArgs). Both start early.
namespace mlxn::ops {

/// A launch of both kernels, and the memory between them.
struct HopperTilePlan {
  std::string_view kernel;
  std::array<std::uint32_t, 3> grid{};
  std::uint32_t threads = 0;
  std::uint32_t dynamic_shared_bytes = 0;  ///< of the kernel, the same in every plan
  std::uint32_t cluster = 1;               ///< blocks along x, of Form::parts along z
  gpu::TensorMapSpec map;                  ///< of the weights; the base is the caller's
  gpu::TensorMapSpec
      x_map;  ///< of staged rows; the base is the caller's, and row_bytes if x is mapped itself

  std::uint32_t stage_grid = 0;
  std::uint64_t row_bytes = 0;        ///< HopperStageArgs::rows, aligned to 16 bytes
  std::uint64_t scale_bytes = 0;      ///< HopperStageArgs::scales, aligned to 8
  std::uint64_t workspace_bytes = 0;  ///< aligned to 16; may be 0
  std::uint32_t counters = 0;         ///< HopperTileArgs::counters, zero before the launch; may be 0

  [[nodiscard]] std::array<std::uint32_t, 3> cluster_dims() const noexcept {
    const bool is_parts = shape.form == tile::Form::parts;
    return {is_parts ? 1 : cluster, 1, is_parts ? cluster : 1};
  }

  std::uint32_t splits = 1;
  tile::Shape shape;
  HopperTileArgs args{};    ///< but for the maps, pointers, y_stride and y_type
  HopperStageArgs stage{};  ///< but for pointers, x_stride and x_type

  /// Whether the product can read rows of x of a type (quant::kElement...) where they lie, `row_bytes` apart:
  /// no stage then, and no scales. f16 and bf16 are exact as they are; what is not finite spoils its own
  /// token's sums only. Sums of x over 16 k are exact to 2^-21 then, as those of x that was rounded to f16.
  [[nodiscard]] bool can_map(std::uint32_t x_type, std::uint64_t base,
                             std::int64_t x_row_bytes) const noexcept {
    return x_type == stage.rows_type && base % 16 == 0 && x_row_bytes > 0 && x_row_bytes % 16 == 0 &&
           x_row_bytes < std::int64_t{1} << 40 && stage.k % 64 == 0;
  }

  /// The plan of the same product with a residual, or with a gate, whose rows are the first half of the
  /// weights' (of records a multiple of 16): a block has one tile, since what follows the sums takes the
  /// stages' memory, and no part of k has another one in its cluster, though it was chosen as if it had.
  void fuse(bool gated) noexcept;

  /// Of Form::parts, whether blocks pair up, and the workspace that is left then.
  void pair_parts(bool paired) noexcept;
};

/// The kernels of a type: kind 0 .. tile::kKinds - 1. Nothing of a type that has no records.
[[nodiscard]] std::string_view hopper_tile_name(DType type, int kind) noexcept;
[[nodiscard]] constexpr tile::Nesting nesting_of(DType type) noexcept {
  switch (type) {
    case DType::q2_K:
    case DType::q4_K:
    case DType::q5_K:
      return tile::Nesting::minimums;
    case DType::q3_K:
    case DType::q6_K:
    case DType::iq4_xs:
      return tile::Nesting::scales;
    default:
      return tile::Nesting::none;
  }
}
/// Whether weights are more than scale * (code - centre).
[[nodiscard]] constexpr bool has_addend(DType type) noexcept {
  return affine_info(type) || type == DType::q4_1 || type == DType::q5_1 || nesting_of(type) == tile::Nesting::minimums;
}
[[nodiscard]] constexpr tile::Shape hopper_tile_shape(DType type, int kind) noexcept {
  const quant::RecordFormat format = quant::record_format(type);
  return tile::shape_of(kind, {static_cast<int>(format.code_bytes() + format.row_bytes()), nesting_of(type), format.planes[0].rows_apart,
                               has_addend(type)});
}

/// How long a launch takes: the multiprocessors multiply steps of 128 k, or wait for the weights.
/// hopper_tile_rates.inc has the rates of every kernel as tile_rates.py found them on a device.
struct HopperTileRates {        // ns
  std::int32_t step = 0;       ///< of a step while the other multiprocessors idle; 0: not known, the kernel is not chosen
  std::int32_t filled = 0;     ///< that it takes longer when all are busy...
  std::int32_t beside = 0;     ///< ... and when blocks beside it multiply the same weights
  std::int32_t wave = 0;       ///< of filling the pipeline and storing y, of each wave of blocks
  std::int32_t parts = 0;      ///< of adding parts of k...
  std::int32_t each_part = 0;  ///< ... and for each of them...
  std::int32_t alone = 0;      ///< ... once more where they do not pair up
};
[[nodiscard]] HopperTileRates hopper_tile_rates(DType type, int kind) noexcept;

/// What of that a plan takes.
struct HopperTileTerms {
  double steps = 0;    ///< of a multiprocessor, one after the other
  double filled = 0;   ///< steps times the share of the multiprocessors that are busy
  double beside = 0;   ///< steps, if there are several tiles of tokens
  double waves = 0;
  double splits = 0;   ///< parts of k; 0 if it is whole
  double alone = 0;    ///< the same, unless they pair up
  double read_us = 0;  ///< of reading the weights: bytes by that many multiprocessors
  double bytes = 0, busy = 0;
};
[[nodiscard]] HopperTileTerms hopper_tile_terms(const HopperTilePlan& plan, std::uint32_t multiprocessors) noexcept;

/// Microseconds.
[[nodiscard]] constexpr double hopper_tile_us(const HopperTileRates& r, const HopperTileTerms& t) noexcept {
  const double multiply = 1e-3 * (t.steps * r.step + t.filled * r.filled + t.beside * r.beside);
  const double adding = t.splits > 0 ? r.parts + r.each_part * t.splits + r.alone * t.alone : 0;
  return (multiply > t.read_us ? multiply : t.read_us) + 1e-3 * (t.waves * r.wave + adding);
}

/// Whether a kernel adds in the order of k, in one part, and rounds as all others that do: the result is the same by any of them.
/// Else k is in halves, or added by turns, or the operand is made otherwise.
[[nodiscard]] constexpr bool adds_in_order(const tile::Shape& shape) noexcept {
  return shape.form != tile::Form::pair && !shape.few && shape.k_groups == 1 && shape.by_record == tile::Nesting::none;
}

/// m, n, k > 0; record_format(type) must hold. batch_invariant: k in one part and by one group of warps, so that a
/// row's sums do not depend on m: such kernels add in the same order, but the pairs and those that add by records.
[[nodiscard]] HopperTilePlan plan_hopper_tile(DType type, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                                              std::uint32_t multiprocessors,
                                              bool batch_invariant = false) noexcept;
/// The plan of one kernel, with k in `splits` parts (or fewer, of the same size) where its form has parts.
[[nodiscard]] HopperTilePlan plan_hopper_shape(DType type, const tile::Shape& shape, std::uint32_t m,
                                               std::uint32_t n, std::uint32_t k, std::uint32_t splits,
                                               std::uint32_t multiprocessors) noexcept;

/// What plans of records and of dense weights share: all but kernel and map. k in `steps` steps of 128,
/// `whole_steps` of which no part divides.
[[nodiscard]] HopperTilePlan plan_tiles(const tile::Shape& shape, std::uint32_t m, std::uint32_t n,
                                        std::uint32_t k, std::uint32_t steps, std::uint32_t splits,
                                        std::uint32_t multiprocessors,
                                        std::uint32_t whole_steps = 1) noexcept;

/// One of a type's kernels.
struct HopperTileKernel {
  std::string_view name;
  tile::Shape shape;
  HopperTileRates rates;
};
/// The plan that takes the least time by the table, of `kinds` kernels, with k in parts where their form has parts.
/// kernel_of(kind); plan_of(shape, splits).
template <class KernelOf, class PlanOf>
[[nodiscard]] HopperTilePlan fastest_plan(int kinds, std::uint32_t multiprocessors, bool batch_invariant,
                                          const KernelOf& kernel_of, const PlanOf& plan_of) noexcept {
  constexpr std::uint32_t kMostSplits = 16;
  HopperTilePlan best;
  double least = 0;
  for (int kind = 0; kind < kinds; ++kind) {
    const HopperTileKernel kernel = kernel_of(kind);
    const tile::Shape& shape = kernel.shape;
    if (kernel.rates.step == 0) continue;
    if (batch_invariant && !adds_in_order(shape)) continue;
    const std::uint32_t most = shape.form == tile::Form::parts && !batch_invariant ? kMostSplits : 1;
    for (std::uint32_t splits = 1; splits <= most; ++splits) {
      HopperTilePlan plan = plan_of(shape, splits);
      if (shape.form == tile::Form::parts && plan.splits != splits) continue;
      if (splits > 1 && plan.args.split_steps < 4) break;
      // Beyond two waves of blocks nothing was measured.
      if (splits > 1 && plan.grid[0] * plan.grid[1] * plan.grid[2] > 2 * multiprocessors) break;
      if (plan.cluster > multiprocessors || (shape.form == tile::Form::pair && plan.args.steps < 8)) continue;
      const double us = hopper_tile_us(kernel.rates, hopper_tile_terms(plan, multiprocessors));
      if (!best.kernel.empty() && us >= least) continue;
      plan.kernel = kernel.name;
      least = us;
      best = plan;
    }
  }
  return best;
}

}  // namespace mlxn::ops
