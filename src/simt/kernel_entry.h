#pragma once

#include "portable/dialect.h"

namespace mlxn {
namespace simt {

/// A portable kernel as host code.
struct KernelEntry {
  const char* name;
  void (*run)(const void* args, const gpu::Thread& thread, void* shared);
};
struct KernelTable {
  const KernelEntry* entries;
  int count;
};
/// The kernels of every operation; the build makes it.
[[nodiscard]] const KernelTable* const* kernel_tables(int& count) noexcept;

/// Copies what a thread is given to its own memory, as the entry shims of GPUs do: the compiler knows then that no store of
/// the kernel changes it, and calls no hook to read it.
template <class K>
void run_kernel(const void* args, const gpu::Thread& thread, void* shared) {
  const typename K::Args own_args = *static_cast<const typename K::Args*>(args);
  const gpu::Thread own_thread = thread;
  K::run(own_args, own_thread, *static_cast<typename K::Shared*>(shared));
}

}  // namespace simt
}  // namespace mlxn
