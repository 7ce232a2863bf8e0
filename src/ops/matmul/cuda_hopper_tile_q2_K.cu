#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q2_K, Q2K)
MLXN_TILE_FILE(cuda_hopper_tile_q2_K, MLXN_TYPES)
