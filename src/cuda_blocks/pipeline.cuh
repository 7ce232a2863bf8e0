// A ring of shared-memory stages between one producer thread, which starts bulk copies, and consumer warps;
// and the handing over of registers between warpgroups.
//
// Every stage has two barriers. `full` ends its phase when its copies have landed: the arrivals of its
// producers (one, or one for what each copies), with byte counts, and the bytes. `empty` ends its phase when
// every consumer warp whose stage it is has arrived (or every lane of them: barrier.cuh). Round r of a stage is
// phase r of both:
//   consumers  wait for full,  parity r % 2
//   producer   waits for empty, parity (r + 1) % 2: in round 0 that is the phase before the first, which
//   counts as ended on a
//              fresh barrier, so the first round needs no special case.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/cluster.cuh"
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
  /// producers: threads that arrive for copies of theirs.
  __device__ __forceinline__ void init(std::uint32_t consumer_arrivals, std::uint32_t producers = 1) const {
    for (std::uint32_t slot = 0; slot < kStages; ++slot) {
      barrier_init(full(slot), producers);
      barrier_init(empty(slot), consumer_arrivals);
    }
    barrier_init_fence();
  }
};

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
