// A ring of shared-memory stages between one producer thread, which starts bulk copies, and consumer warps;
// what blocks of a cluster do to each other's barriers and memory; and the handing over of registers between
// warpgroups.
//
// Every stage has two barriers. `full` ends its phase when its copies have landed: one arrival (the
// producer's, with the byte count) and the bytes. `empty` ends its phase when every consumer warp has
// arrived. Round r of a stage is phase r of both:
//   consumers  wait for full,  parity r % 2
//   producer   waits for empty, parity (r + 1) % 2: in round 0 that is the phase before the first, which
//   counts as ended on a
//              fresh barrier, so the first round needs no special case.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/ptx.cuh"
#include "cuda_blocks/ring.cuh"

namespace mlxn::sm90 {

/// The barriers of a ring, in shared memory at `base` (aligned to 8, kBytes long).
template <std::uint32_t kStages>
struct StageBarriers {
  static constexpr std::uint32_t kBytes = kStages * 16;
  std::uint32_t base;

  __device__ __forceinline__ Barrier full(std::uint32_t slot) const { return base + slot * 8; }
  __device__ __forceinline__ Barrier empty(std::uint32_t slot) const { return base + (kStages + slot) * 8; }

  /// By one thread; then a barrier of the block, or of the cluster where copies cross blocks.
  __device__ __forceinline__ void init(std::uint32_t consumer_arrivals) const {
    for (std::uint32_t slot = 0; slot < kStages; ++slot) {
      barrier_init(full(slot), 1);
      barrier_init(empty(slot), consumer_arrivals);
    }
    barrier_init_fence();
  }
};

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

// ---- clusters ----

__device__ __forceinline__ std::uint32_t cluster_rank() {
  std::uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// Every thread of every block of the cluster; what was written before is visible after.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/// The same shared address in block `rank`, for cluster_store.
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

// ---- registers ----

/// By all warps of a warpgroup, in a kernel whose __launch_bounds__ names threads and blocks; one branch per
/// role.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace mlxn::sm90
