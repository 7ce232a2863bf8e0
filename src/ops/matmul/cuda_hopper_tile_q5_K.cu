#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q5_K, Q5K)
MLXN_TILE_FILE(cuda_hopper_tile_q5_K, MLXN_TYPES)
