// Stand-in of src/cuda_blocks/cluster.cuh on the host. A remote address is an offset in the memory of all
// blocks of the cluster.
#pragma once

#include "cuda_blocks/barrier.cuh"

namespace mlxn::sm90 {

inline std::uint32_t cluster_rank() { return cuda_on_host::cluster_rank(); }
inline void cluster_arrive() { cuda_on_host::cluster_arrive(); }
inline void cluster_wait() { cuda_on_host::cluster_wait(); }
inline std::uint32_t cluster_address(std::uint32_t address, std::uint32_t rank) {
  const std::uint32_t at = address % cuda_on_host::kClusterSharedBytes;
  if (address / cuda_on_host::kClusterSharedBytes != cuda_on_host::cluster_rank())
    cuda_on_host::fail("the address is not this block's");
  return rank * cuda_on_host::kClusterSharedBytes + at;
}
template <class... Floats>
void cluster_send(std::uint32_t remote, std::uint32_t remote_barrier, Floats... floats) {
  const float all[] = {floats...};
  if (remote % sizeof all != 0 || remote + sizeof all > sizeof shared)
    cuda_on_host::fail("misplaced store to another block");
  if (remote / cuda_on_host::kClusterSharedBytes != remote_barrier / cuda_on_host::kClusterSharedBytes)
    cuda_on_host::fail("a store and its barrier are of different blocks");
  std::memcpy(shared + remote, all, sizeof all);
  cuda_on_host::barrier_complete(remote_barrier, sizeof all);
}
inline void cluster_arrive(Barrier barrier, std::uint32_t rank) {
  barrier_arrive(cluster_address(barrier, rank));
}
inline void cluster_barrier_wait(Barrier barrier, std::uint32_t parity) { barrier_wait(barrier, parity); }

}  // namespace mlxn::sm90
