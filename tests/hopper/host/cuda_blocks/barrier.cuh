// Stand-in of src/cuda_blocks/barrier.cuh on the host.
#pragma once

#include "cuda_blocks/ptx.cuh"

namespace mlxn::sm90 {

using Barrier = std::uint32_t;

inline void barrier_init(Barrier barrier, std::uint32_t arrivals) {
  cuda_on_host::barrier_init(barrier, arrivals);
}
inline void barrier_init_fence() {}
inline void barrier_arrive(Barrier barrier) { cuda_on_host::barrier_arrive(barrier, 0); }
inline void barrier_arrive_expect(Barrier barrier, std::uint32_t bytes) {
  cuda_on_host::barrier_arrive(barrier, bytes);
}
inline void barrier_wait(Barrier barrier, std::uint32_t parity) {
  cuda_on_host::wait_for([=] { return cuda_on_host::barrier_has_ended(barrier, parity); });
}

}  // namespace mlxn::sm90
