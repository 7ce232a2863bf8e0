#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(affine4_g64, Affine4G64) DO(affine4_g64_bf16, Affine4G64Bf16)
MLXN_TILE_FILE(cuda_hopper_tile_affine4_g64, MLXN_TYPES)
