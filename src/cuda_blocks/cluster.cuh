// What blocks of a cluster do to each other's barriers and memory.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"

namespace mlxn::sm90 {

/// For loops that wait on a word of global memory. With MLXN_WATCHDOG, polls over more than 2^31 cycles end
/// in a trap.
class SpinGuard {
 public:
  __device__ __forceinline__ void poll() {
#ifdef MLXN_WATCHDOG
    if (start_ == 0) start_ = clock64();
    if (clock64() - start_ > (1ll << 31)) __trap();
#endif
  }

 private:
#ifdef MLXN_WATCHDOG
  long long start_ = 0;
#endif
};

__device__ __forceinline__ std::uint32_t cluster_rank() {
  std::uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// Every thread of every block of the cluster; what was written before is visible after.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
/// The same in two halves, and without a fence: after the second all blocks run, and barriers that they have
/// initialised and fenced before the first can be arrived on.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

/// The same shared address in block `rank`, for cluster_store and cluster_send.
__device__ __forceinline__ std::uint32_t cluster_address(std::uint32_t address, std::uint32_t rank) {
  std::uint32_t remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  return remote;
}

__device__ __forceinline__ void cluster_store(std::uint32_t remote, float a, float b, float c, float d) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(remote), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
}
/// A store whose bytes, 16 or 4, count on a barrier of the block that it goes to; who waits there sees them.
__device__ __forceinline__ void cluster_send(std::uint32_t remote, std::uint32_t remote_barrier, float a,
                                             float b, float c, float d) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
          remote),
      "f"(a), "f"(b), "f"(c), "f"(d), "r"(remote_barrier)
      : "memory");
}

__device__ __forceinline__ void cluster_send(std::uint32_t remote, std::uint32_t remote_barrier, float a) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(remote), "f"(a),
               "r"(remote_barrier)
               : "memory");
}

/// Arrives at the barrier of the same address in block `rank`.
__device__ __forceinline__ void cluster_arrive(Barrier barrier, std::uint32_t rank) {
  asm volatile(
      "{\n .reg .b32 remote;\n mapa.shared::cluster.u32 remote, %0, %1;\n"
      " mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

/// barrier_wait on a barrier that threads of other blocks arrive on: what they did before is visible.
__device__ __forceinline__ void cluster_barrier_wait(Barrier barrier, std::uint32_t parity) {
  SpinGuard guard;
  for (;;) {
    std::uint32_t done;
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        " selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (done != 0) return;
    guard.poll();
  }
}

}  // namespace mlxn::sm90
