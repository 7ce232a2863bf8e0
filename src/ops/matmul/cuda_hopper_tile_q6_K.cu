#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q6_K, Q6K)
MLXN_TILE_FILE(cuda_hopper_tile_q6_K, MLXN_TYPES)
