#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(affine4_g32_bf16, Affine4G32Bf16)
MLXN_TILE_FILE(cuda_hopper_tile_affine4_g32, MLXN_TYPES)
