#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q5_1, Q5_1)
MLXN_TILE_FILE(cuda_hopper_tile_q5_1, MLXN_TYPES)
