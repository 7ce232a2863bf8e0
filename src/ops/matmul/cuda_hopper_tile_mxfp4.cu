#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(mxfp4, Mxfp4)
MLXN_TILE_FILE(cuda_hopper_tile_mxfp4, MLXN_TYPES)
