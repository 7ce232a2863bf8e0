#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q5_0, Q5_0)
MLXN_TILE_FILE(cuda_hopper_tile_q5_0, MLXN_TYPES)
