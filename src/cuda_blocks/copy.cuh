// Copies from global to shared memory that a thread starts and waits for itself, 16 bytes each.
#pragma once

#include <cstdint>

namespace mlxn::sm90 {

/// The first `bytes` (0 or 16) of 16 bytes at `global`, the others 0. Both addresses are multiples of 16.
__device__ __forceinline__ void copy_async(std::uint32_t shared, const void* global, std::uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes)
               : "memory");
}
/// Until all copies of this thread have landed; other threads see them after a barrier.
__device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace mlxn::sm90
