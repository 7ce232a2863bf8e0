#include "ops/matmul/cuda_tile_instances_sm90a.cuh"

#define MLXN_TYPES(DO) DO(iq4_nl, Iq4Nl)
MLXN_TILE_FILE(cuda_hopper_tile_iq4_nl, MLXN_TYPES)
