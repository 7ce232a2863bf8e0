#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(affine8_g32, Affine8G32) DO(affine8_g32_bf16, Affine8G32Bf16)
MLXN_TILE_FILE(cuda_hopper_tile_affine8_g32, MLXN_TYPES)
