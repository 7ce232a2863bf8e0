#include "backends/cuda/kernel_table.h"
#include "ops/attention/cuda_attention_mma.cuh"

namespace mlxn {
namespace gpu {
namespace kernels {

#define MLXN_ATTENTION_MMA(name, dim)                                       \
  __global__ void __launch_bounds__(ops::AttentionMmaShape<dim>::kThreads,  \
                                    ops::AttentionMmaShape<dim>::kResident) \
      name(const __grid_constant__ ops::AttentionArgs args) {               \
    extern __shared__ __align__(16) uint8_t shared[];                       \
    MLXN_CUDA_START_EARLY();                                                \
    AttentionMma<dim>::run(args, blockIdx.x, gridDim.x, shared);            \
  }
MLXN_ATTENTION_MMA_KERNELS(MLXN_ATTENTION_MMA)

}  // namespace kernels

namespace {
#define MLXN_ATTENTION_MMA_ENTRY(name, dim)                                             \
  {#name, reinterpret_cast<const void*>(&kernels::name), sizeof(ops::AttentionArgs), 0, \
   ops::AttentionMmaShape<dim>::kThreads},
const cuda::KernelEntry kEntries[] = {MLXN_ATTENTION_MMA_KERNELS(MLXN_ATTENTION_MMA_ENTRY)};
}  // namespace
}  // namespace gpu

namespace cuda {
extern const KernelTable cuda_attention_mma;
const KernelTable cuda_attention_mma = {gpu::kEntries, sizeof(gpu::kEntries) / sizeof(gpu::kEntries[0])};
}  // namespace cuda
}  // namespace mlxn
