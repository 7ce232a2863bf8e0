#pragma once

// y[m, n] = x[m, k] * w[n, k]^T for few rows of x on Hopper: what host code and the kernel (hopper_vector.cuh) share.

#include <cstdint>
#include <string_view>

#include "mlxn/dtype.h"
#include "portable/args.h"
#include "quant/gpu_weight.h"

namespace mlxn::ops {

inline constexpr std::uint32_t kHopperVectorWarps = 16;                               // that multiply
inline constexpr std::uint32_t kHopperVectorThreads = (kHopperVectorWarps + 2) * 32;  // one copies, one adds up
/// Groups of warps, which take the stages by turns: more, smaller ones have more of a stage to do each and fewer waits, and want
/// more stages in the ring. For small records whose codes are much work.
[[nodiscard]] constexpr std::uint32_t hopper_vector_teams(DType type) noexcept {
  switch (type) {
    case DType::iq4_nl:
    case DType::iq4_xs:
    case DType::mxfp4:
    case DType::q2_K:
    case DType::q3_K: return 4;
    default: return 2;
  }
}
/// What a stage has at most, in units of 16 rows x 128 k.
inline constexpr std::uint32_t kHopperVectorStageUnits = 16;
/// Dynamic shared memory of every instance: one block for each multiprocessor, and room for a small one of another kernel.
inline constexpr std::uint32_t kHopperVectorShared = 208896;
/// What the ring has at least: with less, copies do not keep the memory busy.
inline constexpr std::uint32_t kHopperVectorLeastRing = 68 << 10;
inline constexpr std::uint32_t kHopperVectorPartials = 2;  // tiles whose parts are on their way to the adding warp
inline constexpr std::uint32_t kHopperVectorMostParts = 2;  // blocks of a cluster, which share a tile's k

/// Byte offsets behind the ring of stages.
struct HopperVectorLayout {
  std::uint32_t x;         // per 128 k, of 1 or 2 rows a multiple of 16 of them: m * 256 bytes
  std::uint32_t meta;      // the same: 4 * m * 8 bytes
  std::uint32_t low;       // what x and meta leave of blocks with outliers, which lies as they do
  std::uint32_t lows;      // a byte per 32 items of x (hopper_vector_x.cuh), 8 m for 16 units: whether any of their blocks has such
  std::uint32_t flags;     // per 128 k four bytes, of groups of blocks: the same
  std::uint32_t partial;   // [partials][warp][m][16 rows] f32
  std::uint32_t sums;      // [warp][m] f32, of squares, for a norm
  std::uint32_t other;     // [partials][m][16 rows] f32, the other block's sums, and [m] of its squares
  std::uint32_t barriers;  // of 8 bytes
  std::uint32_t end;
};
/// m: rows of x that the instance is made for. units: of 128 k, of a block. ring_bytes: a multiple of 16.
[[nodiscard]] constexpr HopperVectorLayout hopper_vector_layout(std::uint32_t m, std::uint32_t units, std::uint32_t ring_bytes,
                                                                std::uint32_t stages) noexcept {
  HopperVectorLayout at{};
  const std::uint32_t places = m < 4 ? (units + 15) / 16 * 16 : units;
  const std::uint32_t parts = (units + kHopperVectorStageUnits - 1) / kHopperVectorStageUnits;
  at.x = ring_bytes;
  at.meta = at.x + places * m * 256;
  at.low = at.meta + places * m * 32;
  at.lows = at.low + places * m * 288;
  at.flags = at.lows + parts * 8 * m;
  at.partial = (at.flags + units * 4 + 15) / 16 * 16;
  at.sums = at.partial + kHopperVectorPartials * kHopperVectorWarps * m * 64;
  at.other = at.sums + kHopperVectorWarps * m * 4;
  at.barriers = at.other + kHopperVectorPartials * m * 64 + 16;
  at.end = at.barriers + (2 * stages + 4 * kHopperVectorPartials + parts) * 8;
  return at;
}

inline constexpr std::uint32_t kHopperVectorSilu = 1, kHopperVectorGelu = 2;

/// What of each of its tiles a block has.
struct HopperVectorPart {
  std::uint32_t first;           ///< of the tile's records
  std::uint32_t units;           ///< of 128 k
  std::uint32_t first_k, end_k;  ///< of x
  std::uint32_t stages;
  std::uint32_t last_bytes;  ///< of the last stage, which may be short, and end with a cut record
  std::uint32_t rotates;     ///< 1: teams, by one a tile; else the last, short stage of tiles would always be one's
  std::uint32_t next_tile, next_stage;  ///< behind the first requests, HopperVectorArgs::prefetch
};

struct HopperVectorArgs {
  // First what the copying thread wants: the first weights are asked for when it has got that.
  In<std::uint8_t> records;  // [tiles, tile_bytes] (quant/records.h)
  std::uint32_t tiles;        ///< of 16 rows of w
  std::uint32_t half_tiles;   ///< with a gate, the tiles of either half, which are taken by turns; else 0
  std::uint32_t tiles_per_block;  ///< or per cluster
  std::uint32_t tile_bytes;       ///< from tile to tile
  std::uint32_t stage_bytes;
  std::uint32_t stages;    ///< of the ring; a multiple of the teams
  std::uint32_t prefetch;  ///< stages that are requested before the wait for the kernel before
  std::uint32_t parts;     ///< blocks of a cluster, which share a tile's records
  HopperVectorPart part[kHopperVectorMostParts];
  HopperVectorLayout at;
  std::uint32_t in_flight;  ///< stages that are on their way at a time
  std::uint32_t stage_records;
  In<void> x;         // [m, k]: rows begin at multiples of 16 bytes
  Out<void> y;        // [m, n]
  In<float> norm;     // [k], at a multiple of 16 bytes; null: x as it is. x is f32 then
  In<void> residual;  // [m, n] of y's type, added to the product; null: none. May be y itself
  std::int64_t x_stride, y_stride, residual_stride;  ///< elements from row to row
  std::uint32_t x_type, y_type;                      ///< quant::kElementF32...
  std::uint32_t m, n, k;  ///< n: columns of y
  float norm_eps;
  std::uint32_t activation;  ///< of a gate
};
static_assert(sizeof(HopperVectorArgs) <= 256);

/// A launch. Pointers, strides and element types are the caller's to fill in.
struct HopperVectorPlan {
  std::string_view kernel;  ///< empty: does not fit, take another kernel
  std::uint32_t rows = 0;   ///< of x that the kernel is made for
  std::uint32_t threads = 0, shared_bytes = 0, grid = 0, cluster = 1;
  HopperVectorArgs args{};
  [[nodiscard]] explicit operator bool() const noexcept { return !kernel.empty(); }
};

/// The launch for m rows of x and w[n, k] in records of the type.
///
/// It fits if m is 1 to 4, the type has records, and x fits into shared memory beside a ring: k up to 14336 for 3 and 4 rows,
/// twice as much for 2 and again for one. Above k = 7168 two blocks share a tile's k.
/// gated: the first half of w's rows is a gate for the products with the second, n counts the rows of both halves and has to be a multiple of 32.
/// batch_invariant: the instance for 4 rows, or for fewer if they do not fit, whatever m is, so that a row's sums are the same
/// bits in any company; it fits if m is at most the instance's rows, and more rows are several launches. Beyond that, bits
/// depend on type, n, k and the instance alone.
/// multiprocessors: of the device, > 0.
[[nodiscard]] HopperVectorPlan plan_hopper_vector(DType type, std::int64_t m, std::int64_t n, std::int64_t k,
                                                  std::uint32_t multiprocessors, bool batch_invariant,
                                                  bool gated = false) noexcept;

}  // namespace mlxn::ops

/// The types with kernels, X(type), and the instances by rows of x, X(rows, type).
#define MLXN_HOPPER_VECTOR_TYPES(X) MLXN_HOPPER_VECTOR_GGUF_TYPES(X) MLXN_HOPPER_VECTOR_AFFINE_TYPES(X)
#define MLXN_HOPPER_VECTOR_AFFINE_TYPES(X)                                                  \
  X(affine4_g64) X(affine4_g128) X(affine8_g32) X(affine8_g64) X(affine8_g128)              \
  X(affine4_g32_bf16) X(affine4_g64_bf16) X(affine4_g128_bf16) X(affine8_g32_bf16) X(affine8_g64_bf16) X(affine8_g128_bf16)
#define MLXN_HOPPER_VECTOR_GGUF_TYPES(X) \
  X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0) X(q2_K) X(q3_K) X(q4_K) X(q5_K) X(q6_K) X(iq4_nl) X(iq4_xs) X(mxfp4)
#define MLXN_HOPPER_VECTOR_INSTANCES(X, type) X(1, type) X(2, type) X(4, type)
