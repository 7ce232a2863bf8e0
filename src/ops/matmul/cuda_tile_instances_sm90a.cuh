// MLXN_TILE_TYPE(type, Format): the tile kernels of a type of weights, and MLXN_TILE_ENTRIES(type, Format)
// their rows in a table.
#pragma once

#include "backends/cuda/kernel_table.h"
#include "ops/matmul/cuda_tile_sm90a.cuh"

namespace mlxn::tile {
template <class F, int kKind>
using Instance = Config<F, shape_of(kKind, F::kCodeBytes + F::kRowBytes)>;
}  // namespace mlxn::tile

#define MLXN_TILE_LIST(DO, type, Format)      \
  DO(matmul_hopper_tile16_##type, Format, 0)  \
  DO(matmul_hopper_tile32_##type, Format, 1)  \
  DO(matmul_hopper_tile64_##type, Format, 2)  \
  DO(matmul_hopper_tile128_##type, Format, 3) \
  DO(matmul_hopper_tile256_##type, Format, 4) \
  DO(matmul_hopper_pair256_##type, Format, 5)

#define MLXN_TILE_KERNEL(name, Format, kind)                                                                \
  __global__ void __launch_bounds__(Instance<Format, kind>::kThreads, Instance<Format, kind>::kBlocksPerSm) \
      name(const __grid_constant__ HopperTileArgs args) {                                                   \
    tile_matmul<Instance<Format, kind>>(args);                                                              \
  }
#define MLXN_TILE_ENTRY(name, Format, kind)                                                           \
  {#name, reinterpret_cast<const void*>(&::mlxn::tile::name), sizeof(::mlxn::ops::HopperTileArgs), 0, \
   ::mlxn::tile::Instance<::mlxn::tile::Format, kind>::kThreads},

#define MLXN_TILE_TYPE(type, Format) MLXN_TILE_LIST(MLXN_TILE_KERNEL, type, Format)
#define MLXN_TILE_ENTRIES(type, Format) MLXN_TILE_LIST(MLXN_TILE_ENTRY, type, Format)

/// A file of kernels: its table and the kernels of TYPES(DO), DO(type, Format).
#define MLXN_TILE_FILE(table, TYPES)                                            \
  namespace mlxn::tile {                                                        \
  TYPES(MLXN_TILE_TYPE)                                                         \
  }                                                                             \
  namespace mlxn::cuda {                                                        \
  namespace {                                                                   \
  const KernelEntry kEntries[] = {TYPES(MLXN_TILE_ENTRIES)};                    \
  }                                                                             \
  extern const KernelTable table;                                               \
  const KernelTable table = {kEntries, sizeof(kEntries) / sizeof(kEntries[0])}; \
  }
