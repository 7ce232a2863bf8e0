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
//
// Where kernels can start early (compute capability 9.0, see KernelInfo::starts_early), a group lets the next kernel take the
// room that is left as soon as it runs itself, and waits for the kernel before it ahead of all else: what is saved is the time
// between the end of one kernel and the start of the next.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
#define MLXN_CUDA_START_EARLY() asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory")
#else
#define MLXN_CUDA_START_EARLY()
#endif
#define MLXN_CUDA_KERNEL(name, ...)                                                                         \
  __global__ void __launch_bounds__(__VA_ARGS__::kThreads) name(const __grid_constant__ __VA_ARGS__::Args args) { \
    __shared__ __VA_ARGS__::Shared shared;                                                                  \
    MLXN_CUDA_START_EARLY();                                                                                \
    Thread thread;                                                                                          \
    thread.group = blockIdx;                                                                                \
    thread.groups = make_uint3(gridDim.x, gridDim.y, gridDim.z);                                            \
    thread.index = threadIdx.x;                                                                             \
    __VA_ARGS__::run(args, thread, shared);                                                                 \
  }
#define MLXN_CUDA_ENTRY(name, ...) \
  {#name, reinterpret_cast<const void*>(&kernels::name), sizeof(__VA_ARGS__::Args), sizeof(__VA_ARGS__::Shared), __VA_ARGS__::kThreads},
#endif
