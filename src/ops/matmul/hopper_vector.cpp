#include "ops/matmul/hopper_vector.h"

#include <algorithm>
#include <limits>

#include "quant/records.h"

namespace mlxn::ops {
namespace {

// A stage is one copy: large ones keep the memory busy (cuda_blocks/bulk.cuh), small ones let the ring be finer. With two units
// of 128 k and more for each warp of a team, its work on a stage is worth the wait for it.
constexpr std::uint32_t kMostStage = 28672;
// What is on its way keeps the memory busy from 36 KB on; with all the ring holds, x waits behind it (a layer of an 8B model in q8_0:
// 65 against 61 us, of q6_K 62 against 56).
constexpr std::uint32_t kPrefetch = 36 << 10, kInFlight = 45 << 10;
// More in front keeps the memory busy until x is there, and takes bandwidth from the kernel before and the way from x: with 52 KB q4_0
// takes 8.85 us instead of 9.14 at 4096x14336, 4.04 instead of 3.78 at 4096x4096 (H200). In an 8B model only the longest products gain:
// q8_0 460 tokens per second instead of 455. Those of four teams, whose time is instructions, do not.
constexpr std::uint32_t kPrefetchOfLong = 52 << 10, kLongStages = 24;
constexpr std::uint32_t kFewStages = 20480;
constexpr std::int64_t kMostAlone = 7168;
constexpr std::uint32_t kLeastStages = 4, kMostStages = 24;

std::string_view kernel_name(DType type, std::uint32_t rows) noexcept {
  switch (type) {
#define MLXN_NAME(rows_of, type_of) \
  if (rows == rows_of) return "matmul_hopper_vector" #rows_of "_" #type_of;
#define MLXN_CASE(type_of)                                    \
  case DType::type_of:                                        \
    MLXN_HOPPER_VECTOR_INSTANCES(MLXN_NAME, type_of) return {};
    MLXN_HOPPER_VECTOR_TYPES(MLXN_CASE)
#undef MLXN_CASE
#undef MLXN_NAME
    default: return {};
  }
}

}  // namespace

HopperVectorPlan plan_hopper_vector(DType type, std::int64_t m, std::int64_t n, std::int64_t k, std::uint32_t multiprocessors,
                                    bool batch_invariant, bool gated) noexcept {
  constexpr std::int64_t kMostN = std::numeric_limits<std::int32_t>::max();
  const quant::RecordFormat format = quant::record_format(type);
  // Far above what fits, so that the sums below do not overflow.
  constexpr std::int64_t kMostK = 1 << 20;
  if (!format || m < 1 || m > 4 || n < 1 || n > kMostN || k < 1 || k > kMostK || k % format.block_elems != 0)
    return {};
  if (gated && n % 32 != 0) return {};
  HopperVectorPlan plan;
  HopperVectorArgs& args = plan.args;
  const quant::RecordGrid grid = quant::record_grid(format, n, k);
  args.m = static_cast<std::uint32_t>(m), args.n = static_cast<std::uint32_t>(gated ? n / 2 : n);
  args.k = static_cast<std::uint32_t>(k);
  args.tiles = static_cast<std::uint32_t>(grid.tiles);
  args.half_tiles = gated ? args.tiles / 2 : 0;
  const auto tile_records = static_cast<std::uint32_t>(grid.tile_records);
  args.tile_bytes = static_cast<std::uint32_t>(grid.tile_bytes);
  const std::uint32_t halves = format.elems / quant::kRecordHalf;
  // Two blocks make ready half of x each where that takes longer than the weights' way into the ring.
  args.parts = k > kMostAlone ? 2 : 1;
  const std::uint32_t part_records = (tile_records + args.parts - 1) / args.parts;
  const std::uint32_t units = part_records * halves;

  const auto others_of = [&](std::uint32_t rows_of) {
    return hopper_vector_layout(rows_of, units, 0, kMostStages).end;
  };
  const auto fits = [&](std::uint32_t rows_of) { return others_of(rows_of) + kHopperVectorLeastRing <= kHopperVectorShared; };
  std::uint32_t rows = batch_invariant || m >= 3 ? 4u : static_cast<std::uint32_t>(m);
  while (batch_invariant && rows > 1 && !fits(rows)) rows /= 2;
  if (!fits(rows) || m > rows) return {};
  const std::uint32_t others = others_of(rows);
  const std::uint32_t ring = kHopperVectorShared - others;
  // Stages are multiples of what a team's warps take at once, so that unit u is always the same warp's.
  const std::uint32_t teams = hopper_vector_teams(type), turn = kHopperVectorWarps / teams / halves;  // records
  std::uint32_t turns = kHopperVectorStageUnits / halves / turn;
  const auto stages_of = [&](std::uint32_t turns_of) { return ring / (turns_of * turn * format.bytes()); };
  while (turns > 1 && (turns * turn * format.bytes() > kMostStage || stages_of(turns) < kLeastStages)) turns /= 2;
  args.stage_records = std::min(turns * turn, part_records);
  const std::uint32_t stage_bytes = args.stage_bytes = args.stage_records * format.bytes();

  for (std::uint32_t i = 0; i < args.parts; ++i) {
    HopperVectorPart& part = args.part[i];
    part.first = i * part_records;
    const std::uint32_t records = std::min(part_records, tile_records - part.first);
    part.units = records * halves;
    part.first_k = part.first * format.elems, part.end_k = std::min(args.k, part.first_k + records * format.elems);
    part.stages = (records + args.stage_records - 1) / args.stage_records;
    const std::uint32_t end = std::min(args.tile_bytes, (part.first + records) * format.bytes());
    part.last_bytes = end - part.first * format.bytes() - (part.stages - 1) * stage_bytes;
    part.rotates = teams > 2 && part.stages % teams == 0 && records % args.stage_records != 0 ? 1 : 0;
  }

  const std::uint32_t clusters = std::max(multiprocessors / args.parts, 1u);
  std::uint32_t tiles_per_block = (args.tiles + clusters - 1) / clusters;
  if (gated) tiles_per_block += tiles_per_block % 2;  // a gate and what it is for
  args.tiles_per_block = tiles_per_block;
  args.stages = std::min(ring / stage_bytes, kMostStages) / teams * teams;
  // Where teams rotate a slot is filled again one stage before its turn: by then the copying thread has to have seen the last one land,
  // else it would wait for a phase of the barrier that only it can begin.
  const std::uint32_t most_in_flight = teams > 2 ? args.stages - 1 : args.stages;
  // One stage is too little however large: q6_K 13.3 us against 12.6 at 4096x14336 (H200).
  const bool is_long = teams == 2 && tiles_per_block * args.part[0].stages >= kLongStages;
  const std::uint32_t prefetch = is_long ? kPrefetchOfLong : kPrefetch;
  args.prefetch = std::clamp((prefetch + stage_bytes / 2) / stage_bytes, std::min(2u, most_in_flight), most_in_flight);
  args.in_flight = std::clamp((kInFlight + stage_bytes / 2) / stage_bytes, 1u, most_in_flight);
  // Of the largest stages two leave gaps: q5_K 12.0 us against 11.8 at 4096x14336 (H200).
  if (stage_bytes > kFewStages) args.in_flight = std::min(3u, most_in_flight);
  args.in_flight = std::max(args.in_flight, args.prefetch);
  for (const HopperVectorPart& part : args.part)
    if (part.rotates != 0) args.prefetch = std::min(args.prefetch, part.stages);  // slots of the first tile are in order
  for (HopperVectorPart& part : args.part) {
    if (part.stages == 0) continue;
    part.next_tile = args.prefetch / part.stages, part.next_stage = args.prefetch % part.stages;
  }
  args.at = hopper_vector_layout(rows, units, args.stages * stage_bytes, args.stages);

  plan.kernel = kernel_name(type, rows);
  plan.rows = rows;
  plan.threads = kHopperVectorThreads;
  plan.shared_bytes = kHopperVectorShared;
  plan.cluster = args.parts;
  plan.grid = (args.tiles + tiles_per_block - 1) / tiles_per_block * args.parts;
  return plan;
}

}  // namespace mlxn::ops
