#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(affine4_g128, Affine4G128) DO(affine4_g128_bf16, Affine4G128Bf16)
MLXN_TILE_FILE(cuda_hopper_tile_affine4_g128, MLXN_TYPES)
