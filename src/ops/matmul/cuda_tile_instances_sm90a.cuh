// MLXN_TILE_TYPE(type, Format): the tile kernels of a type of weights with records, and
// MLXN_TILE_ENTRIES(type, Format) their rows in a table; MLXN_DENSE_TYPE and MLXN_DENSE_ENTRIES those of
// dense weights.
#pragma once

#include "backends/cuda/kernel_table.h"
#include "ops/matmul/cuda_tile_sm90a.cuh"

namespace mlxn::tile {
template <class F>
constexpr Traits kTraits = {F::kCodeBytes + F::kRowBytes, F::kNesting, looks_up<typename F::Codes>(),
                            Few<F>::Addend::kAdds};
template <class F, int kKind>
using Instance = Config<F, shape_of(kKind, kTraits<F>)>;
template <class F, int kKind>
using DenseInstance = Config<F, dense_shape_of(kKind)>;
}  // namespace mlxn::tile

#define MLXN_KIND_LIST(DO, type, Format, first)       \
  DO(matmul_hopper_tile16_##type, Format, first)      \
  DO(matmul_hopper_tile32_##type, Format, first + 1)  \
  DO(matmul_hopper_tile64_##type, Format, first + 2)  \
  DO(matmul_hopper_tile128_##type, Format, first + 3) \
  DO(matmul_hopper_tile256_##type, Format, first + 4) \
  DO(matmul_hopper_pair256_##type, Format, first + 5)
#define MLXN_TILE_LIST(DO, type, Format)    \
  DO(matmul_hopper_tile8_##type, Format, 0) \
  MLXN_KIND_LIST(DO, type, Format, 1)
#define MLXN_DENSE_LIST(DO, type, Format) MLXN_KIND_LIST(DO, type, Format, 0)

#define MLXN_KERNEL_OF(name, ...)                                                     \
  __global__ void __launch_bounds__(__VA_ARGS__::kThreads, __VA_ARGS__::kBlocksPerSm) \
      name(const __grid_constant__ HopperTileArgs args) {                             \
    tile_matmul<__VA_ARGS__>(args);                                                   \
  }
#define MLXN_ENTRY_OF(name, ...)                                                                      \
  {#name, reinterpret_cast<const void*>(&::mlxn::tile::name), sizeof(::mlxn::ops::HopperTileArgs), 0, \
   ::mlxn::tile::__VA_ARGS__::kThreads},
#define MLXN_TILE_KERNEL(name, Format, kind) MLXN_KERNEL_OF(name, Instance<Format, kind>)
#define MLXN_TILE_ENTRY(name, Format, kind) MLXN_ENTRY_OF(name, Instance<::mlxn::tile::Format, kind>)
#define MLXN_DENSE_KERNEL(name, Format, kind) MLXN_KERNEL_OF(name, DenseInstance<Format, kind>)
#define MLXN_DENSE_ENTRY(name, Format, kind) MLXN_ENTRY_OF(name, DenseInstance<::mlxn::tile::Format, kind>)

#define MLXN_TILE_TYPE(type, Format) MLXN_TILE_LIST(MLXN_TILE_KERNEL, type, Format)
#define MLXN_TILE_ENTRIES(type, Format) MLXN_TILE_LIST(MLXN_TILE_ENTRY, type, Format)

#define MLXN_DENSE_TYPE(type, Format) MLXN_DENSE_LIST(MLXN_DENSE_KERNEL, type, Format)
#define MLXN_DENSE_ENTRIES(type, Format) MLXN_DENSE_LIST(MLXN_DENSE_ENTRY, type, Format)

/// A file of kernels: its table and the kernels of TYPES(DO), DO(type, Format).
#define MLXN_KERNEL_FILE(table, TYPES, TYPE, ENTRIES)                           \
  namespace mlxn::tile {                                                        \
  TYPES(TYPE)                                                                   \
  }                                                                             \
  namespace mlxn::cuda {                                                        \
  namespace {                                                                   \
  const KernelEntry kEntries[] = {TYPES(ENTRIES)};                              \
  }                                                                             \
  extern const KernelTable table;                                               \
  const KernelTable table = {kEntries, sizeof(kEntries) / sizeof(kEntries[0])}; \
  }
#define MLXN_TILE_FILE(table, TYPES) MLXN_KERNEL_FILE(table, TYPES, MLXN_TILE_TYPE, MLXN_TILE_ENTRIES)
#define MLXN_DENSE_FILE(table, TYPES) MLXN_KERNEL_FILE(table, TYPES, MLXN_DENSE_TYPE, MLXN_DENSE_ENTRIES)
