#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(affine8_g64, Affine8G64) DO(affine8_g64_bf16, Affine8G64Bf16)
MLXN_TILE_FILE(cuda_hopper_tile_affine8_g64, MLXN_TYPES)
