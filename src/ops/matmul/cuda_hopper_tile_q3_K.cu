#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q3_K, Q3K)
MLXN_TILE_FILE(cuda_hopper_tile_q3_K, MLXN_TYPES)
