#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/weight_rows16.h"
#include "mlxn/dtype.h"

/// The kernels of the product with weights in the rows16 layout (backends/cpu/weight_rows16.h), one table per instruction
/// set. A kernel works on 16 columns of y (a group of weight rows) and up to eight rows of x (a tile); the loops around it
/// are in cpu.cpp.
namespace mlxn::rows16 {

/// 32 elements of a row of x, quantised: one cache line, so that a kernel reads all of it through one address.
struct alignas(64) QuantisedX {
  std::int8_t q[32];
  float d;                   ///< scale: max|x| / 127
  float sum;                 ///< d * (q[0] + ... + q[31])
  float half_sum[2];         ///< the same of 16 each
  std::int32_t start;        ///< -bias * (q[0] + ... + q[31]), bias = what the weight's codes are off by
  std::int32_t half_start[2];
  std::int32_t padding;
};
static_assert(sizeof(QuantisedX) == 64);

/// Rows of x a tile can have: 1, 2, 4 or 8. Rows are cut greedily, the largest tiles first. What a row of y becomes does not
/// depend on its tile: every kernel adds in the same order.
inline constexpr int kTileSizes = 4;

/// Class exact counts k in units of 16 elements. A unit of x is its elements and their sum. A slab is a chunk of weights
/// decoded to f32: per unit 16 vectors of codes, one of scales and one of offsets, for 16 rows each.
inline constexpr std::int64_t kUnitElems = 16;
inline constexpr std::int64_t kUnitX = 17;
inline constexpr std::int64_t kUnitScale = 16 * 16;
inline constexpr std::int64_t kUnitOffset = 17 * 16;
inline constexpr std::int64_t kUnitFloats = 18 * 16;

/// With many rows of x class int8act unpacks the codes of some types to a slab first, a chunk of k at a time. A slab counts
/// k in units of 32 elements; a unit is 8 vectors of codes as the integer kernel takes them (four consecutive codes a lane),
/// then up to two of scales and two of offsets, for 16 rows each.
inline constexpr std::int64_t kCodeUnitScales = 8 * 64;
inline constexpr std::int64_t kCodeUnitOffsets = 10 * 64;
inline constexpr std::int64_t kCodeUnitBytes = 12 * 64;
inline constexpr std::int64_t kCodeSlabBytes = kChunkElems / 32 * kCodeUnitBytes;

/// Rows of x as a caller has them.
struct SourceX {
  const std::uint8_t* data;
  std::int64_t row_bytes;  ///< stride
  std::int64_t k;
  DType type;  ///< f32, f16 or bf16
};

/// Elements [begin, end) of k (begin a multiple of 32) of `rows` rows, interleaved: block i of row r at out[i * rows + r].
using QuantiseX = void (*)(const SourceX& x, std::int64_t row, int rows, std::int64_t begin, std::int64_t end,
                           std::int32_t bias, QuantisedX* out);
/// The same in units of floats: element e of unit u of row r at out[(u * kUnitX + e) * rows + r], zeros from k on; begin and
/// end are multiples of 16; `to_f16` rounds to the nearest half.
using CopyX = void (*)(const SourceX& x, std::int64_t row, int rows, std::int64_t begin, std::int64_t end, bool to_f16,
                       float* out);
/// totals[16 r + lane] += the products of k elements (k starts at a chunk of the group).
using MultiplyQuantised = void (*)(const std::uint8_t* group, std::int64_t k, const QuantisedX* x, float* totals);
using MultiplyExact = void (*)(const std::uint8_t* group, std::int64_t k, const float* x, float* totals);
/// Unpacks at most a chunk to a slab of codes.
using Unpack = void (*)(const std::uint8_t* chunk, std::int64_t k, std::uint8_t* slab);
/// Decodes at most a chunk to a slab.
using Decode = void (*)(const std::uint8_t* chunk, std::int64_t k, float* slab);
/// totals += slab * x, in the same order of sums as MultiplyExact.
using MultiplySlab = void (*)(const float* slab, std::int64_t k, const float* x, float* totals);
/// Converts `count` <= 16 totals to y's type and stores them.
using Store = void (*)(const float* totals, int count, DType type, std::uint8_t* y);

struct WeightKernels {
  MultiplyQuantised quantised[kTileSizes];  ///< index i: tiles of 1 << i rows; null for dense weights
  MultiplyQuantised ahead;  ///< quantised[0], but asks for the weights ahead; null where it would not help
  Unpack unpack;  ///< null where a slab of codes would not help
  MultiplyQuantised codes[kTileSizes];  ///< the same sums as `quantised` from a slab of codes
  MultiplyExact exact[kTileSizes];
  Decode decode;
  std::int32_t bias;  ///< of the codes as the integer kernel sees them
  bool minimum;       ///< which slab kernel
};

struct Kernels {
  WeightKernels weights[kDTypeCount];  ///< all null where the type is no weight
  MultiplySlab slab[2][kTileSizes];  ///< [with offsets]
  QuantiseX quantise;
  QuantiseX quantise_for_codes;  ///< for weights[].codes, which may want rows of x in another order
  CopyX copy;
  Store store;
  std::int64_t stretch;      ///< elements of k that a kernel for packed weights is best given at a time
  std::int64_t unpack_rows;  ///< rows of x from which a slab of codes pays
  int quantised_tile;  ///< rows of the largest tile that weights[].quantised and codes have
  int exact_tile;      ///< the same of weights[].exact
  int slab_tile;       ///< the same of slab
};

// Each fills its part of a table.
namespace scalar {
void add_quantised_kernels(Kernels& to) noexcept;
void add_exact_kernels(Kernels& to) noexcept;
}  // namespace scalar
namespace avx2 {
void add_quantised_kernels(Kernels& to) noexcept;
void add_exact_kernels(Kernels& to) noexcept;
}  // namespace avx2
namespace avx512 {
void add_quantised_kernels(Kernels& to) noexcept;
void add_exact_kernels(Kernels& to) noexcept;
}  // namespace avx512
namespace neon {
void add_quantised_kernels(Kernels& to) noexcept;
void add_exact_kernels(Kernels& to) noexcept;
}  // namespace neon
namespace dotprod {
void add_quantised_kernels(Kernels& to) noexcept;
}  // namespace dotprod
namespace i8mm {
void add_pair_kernels(Kernels& to) noexcept;  ///< to what dotprod has added
}  // namespace i8mm

}  // namespace mlxn::rows16
