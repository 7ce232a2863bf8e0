#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(affine8_g128, Affine8G128) DO(affine8_g128_bf16, Affine8G128Bf16)
MLXN_TILE_FILE(cuda_hopper_tile_affine8_g128, MLXN_TYPES)
