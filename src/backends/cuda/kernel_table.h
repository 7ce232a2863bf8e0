#pragma once

// The portable kernels as nvcc compiles them: thin, since every file of kernels reads it.

namespace mlxn {
namespace cuda {

/// A kernel and the host's handle of it, as the CUDA runtime takes it.
struct KernelEntry {
  const char* name;
  const void* function;
  unsigned args_bytes, shared_bytes, threads;  ///< as nvcc sees them
};
struct KernelTable {
  const KernelEntry* entries;
  int count;
};
/// The kernels of every operation; the build makes it.
const KernelTable* const* kernel_tables(int& count) noexcept;

}  // namespace cuda
}  // namespace mlxn

#if defined(__CUDACC__)
// For a kernel header's list: the entry points, and their rows in the table.
#define MLXN_CUDA_KERNEL(name, ...)                                                                         \
  __global__ void __launch_bounds__(__VA_ARGS__::kThreads) name(const __grid_constant__ __VA_ARGS__::Args args) { \
    __shared__ __VA_ARGS__::Shared shared;                                                                  \
    Thread thread;                                                                                          \
    thread.group = blockIdx;                                                                                \
    thread.groups = make_uint3(gridDim.x, gridDim.y, gridDim.z);                                            \
    thread.index = threadIdx.x;                                                                             \
    __VA_ARGS__::run(args, thread, shared);                                                                 \
  }
#define MLXN_CUDA_ENTRY(name, ...) \
  {#name, reinterpret_cast<const void*>(&kernels::name), sizeof(__VA_ARGS__::Args), sizeof(__VA_ARGS__::Shared), __VA_ARGS__::kThreads},
#endif
