#include "backends/cuda/kernel_table.h"
#include "ops/cached_attention/cuda_cached_attention.cuh"

namespace mlxn {
namespace gpu {
namespace kernels {

// Other devices than Hopper have the kernels' names only.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
#define MLXN_CACHED_ATTENTION_RUN(dim, rows)        \
  extern __shared__ __align__(16) uint8_t shared[]; \
  CachedAttention<dim, rows>::run(args, blockIdx.x, shared)
#else
#define MLXN_CACHED_ATTENTION_RUN(dim, rows) static_cast<void>(args)
#endif
#define MLXN_CACHED_ATTENTION(name, dim, rows)                                       \
  __global__ void __launch_bounds__(ops::CachedAttentionShape<dim, rows>::kThreads,  \
                                    ops::CachedAttentionShape<dim, rows>::kResident) \
      name(const __grid_constant__ ops::CachedAttentionArgs args) {                  \
    MLXN_CACHED_ATTENTION_RUN(dim, rows);                                            \
  }
MLXN_CACHED_ATTENTION_KERNELS(MLXN_CACHED_ATTENTION)

}  // namespace kernels

namespace {
#define MLXN_CACHED_ATTENTION_ENTRY(name, dim, rows)                                          \
  {#name, reinterpret_cast<const void*>(&kernels::name), sizeof(ops::CachedAttentionArgs), 0, \
   ops::CachedAttentionShape<dim, rows>::kThreads},
const cuda::KernelEntry kEntries[] = {MLXN_CACHED_ATTENTION_KERNELS(MLXN_CACHED_ATTENTION_ENTRY)};
}  // namespace
}  // namespace gpu

namespace cuda {
extern const KernelTable cuda_cached_attention;
const KernelTable cuda_cached_attention = {gpu::kEntries, sizeof(gpu::kEntries) / sizeof(gpu::kEntries[0])};
}  // namespace cuda
}  // namespace mlxn
