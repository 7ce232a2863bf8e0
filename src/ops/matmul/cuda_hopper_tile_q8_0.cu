#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(q8_0, Q8_0)
MLXN_TILE_FILE(cuda_hopper_tile_q8_0, MLXN_TYPES)
