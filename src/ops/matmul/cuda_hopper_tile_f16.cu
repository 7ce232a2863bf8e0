#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(f16, F16)
MLXN_DENSE_FILE(cuda_hopper_tile_f16, MLXN_TYPES)
