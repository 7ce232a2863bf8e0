#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(bf16_narrow, Bf16Narrow)
MLXN_DENSE_FILE(cuda_hopper_tile_bf16_narrow, MLXN_TYPES)
