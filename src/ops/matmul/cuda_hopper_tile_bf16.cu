#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(bf16, Bf16)
MLXN_DENSE_FILE(cuda_hopper_tile_bf16, MLXN_TYPES)
