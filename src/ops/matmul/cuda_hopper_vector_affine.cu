// The kernels for few rows of x on Hopper, of MLX's affine types.
#include "ops/matmul/cuda_hopper_vector_table.cuh"

MLXN_HOPPER_VECTOR_TABLE(cuda_hopper_vector_affine, MLXN_HOPPER_VECTOR_AFFINE_TYPES)
