// mbarrier: the barrier in shared memory that threads and asynchronous copies arrive on.
//
// A barrier has a phase, which ends when its count of arrivals and all announced bytes are in. Waiting names
// the parity of the phase whose end is waited for: 0 for the first, 1 for the second, 0 for the third, ... A
// waiter may be at most one phase behind, so whoever reuses a stage must wait for its readers first.
//
// A lane may arrive for its warp after __syncwarp(). racecheck sees the accesses of the arriving lane alone,
// though, and reports those of the others if threads or bulk copies (not tensor copies) write there next; there
// every lane arrives.
#pragma once

#include <cstdint>

#include "cuda_blocks/ptx.cuh"

namespace mlxn::sm90 {

/// Shared address of a barrier of 8 bytes, aligned to 8.
using Barrier = std::uint32_t;

__device__ __forceinline__ void barrier_init(Barrier barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// After the last barrier_init of a thread: makes them visible to asynchronous copies. Other threads need a
/// block barrier too.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(Barrier barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives once and announces `bytes` that copies will bring in this phase.
__device__ __forceinline__ void barrier_arrive_expect(Barrier barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

/// Whether the phase of this parity has ended; the instruction itself waits a while.
__device__ __forceinline__ bool barrier_try_wait(Barrier barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

/// Waits for the end of the phase of this parity. With MLXN_WATCHDOG a wait of more than 2^28 cycles (about a
/// seventh of a second) gives up: the results are wrong, but the kernel ends. (A trap would have ptxas
/// serialise matrix instructions.)
__device__ __forceinline__ void barrier_wait(Barrier barrier, std::uint32_t parity) {
  if (barrier_try_wait(barrier, parity)) return;
#ifdef MLXN_WATCHDOG
  const long long start = clock64();
#endif
  while (!barrier_try_wait(barrier, parity)) {
#ifdef MLXN_WATCHDOG
    if (clock64() - start > (1ll << 28)) return;
#endif
  }
}

}  // namespace mlxn::sm90
