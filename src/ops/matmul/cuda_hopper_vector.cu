// The kernels for few rows of x on Hopper.
#include "ops/matmul/cuda_hopper_vector_table.cuh"

MLXN_HOPPER_VECTOR_TABLE(cuda_hopper_vector, MLXN_HOPPER_VECTOR_GGUF_TYPES)
