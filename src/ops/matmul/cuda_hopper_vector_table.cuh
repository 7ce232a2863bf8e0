// MLXN_HOPPER_VECTOR_TABLE: the kernels for few rows of x on Hopper of a list of types (hopper_vector.h), as
// a table of that name.
#pragma once

#include "backends/cuda/kernel_table.h"
#include "ops/matmul/hopper_vector.cuh"

#define MLXN_HOPPER_VECTOR_ENTRY(rows, type)                                                               \
  {"matmul_hopper_vector" #rows "_" #type,                                                                 \
   reinterpret_cast<const void*>(&hopper_vector<vector_formats::type, rows>), sizeof(HopperVectorArgs), 0, \
   ops::kHopperVectorThreads},
#define MLXN_HOPPER_VECTOR_TYPE(type) MLXN_HOPPER_VECTOR_INSTANCES(MLXN_HOPPER_VECTOR_ENTRY, type)

#define MLXN_HOPPER_VECTOR_TABLE(name, TYPES)                                                    \
  namespace mlxn {                                                                               \
  namespace sm90 {                                                                               \
  namespace {                                                                                    \
  const cuda::KernelEntry kEntries[] = {TYPES(MLXN_HOPPER_VECTOR_TYPE)};                         \
  }                                                                                              \
  }                                                                                              \
  namespace cuda {                                                                               \
  extern const KernelTable name;                                                                 \
  const KernelTable name = {sm90::kEntries, sizeof(sm90::kEntries) / sizeof(sm90::kEntries[0])}; \
  }                                                                                              \
  }
