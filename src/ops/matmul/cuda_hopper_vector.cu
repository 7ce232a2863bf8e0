// The kernels for few rows of x on Hopper.
#include "backends/cuda/kernel_table.h"
#include "ops/matmul/hopper_vector.cuh"

namespace mlxn {
namespace sm90 {
namespace {

#define MLXN_ENTRY(rows, type)                                                                        \
  {"matmul_hopper_vector" #rows "_" #type,                                                            \
   reinterpret_cast<const void*>(&hopper_vector<vector_formats::type, rows>), sizeof(HopperVectorArgs), 0, \
   ops::kHopperVectorThreads},
#define MLXN_TYPE(type) MLXN_HOPPER_VECTOR_INSTANCES(MLXN_ENTRY, type)
const cuda::KernelEntry kEntries[] = {MLXN_HOPPER_VECTOR_GGUF_TYPES(MLXN_TYPE)};

}  // namespace
}  // namespace sm90

namespace cuda {
extern const KernelTable cuda_hopper_vector;
const KernelTable cuda_hopper_vector = {sm90::kEntries, sizeof(sm90::kEntries) / sizeof(sm90::kEntries[0])};
}  // namespace cuda
}  // namespace mlxn
