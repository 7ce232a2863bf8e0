// Bulk copies: one thread starts a copy of contiguous bytes, which arrives on a barrier.
//
// Few large copies, not many small ones: above about 32 outstanding copies per multiprocessor the memory rate
// falls. An H200 reaches 96 % of its read rate with 36 KB in flight per multiprocessor.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"

namespace mlxn::sm90 {

/// Cache policy for data that is read once: first to be evicted from L2.
__device__ __forceinline__ std::uint64_t policy_read_once() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// Starts a copy of global memory to shared memory. Both addresses and `bytes` are multiples of 16; the bytes
/// count against what was announced on `barrier`.
__device__ __forceinline__ void bulk_load(std::uint32_t shared, const void* global, std::uint32_t bytes,
                                          Barrier barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

/// The same with the default policy.
__device__ __forceinline__ void bulk_load(std::uint32_t shared, const void* global, std::uint32_t bytes,
                                          Barrier barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(barrier)
      : "memory");
}

/// Asks for a tensor map that a copy will soon need; a map is a __grid_constant__ kernel parameter.
__device__ __forceinline__ void map_prefetch(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<std::uint64_t>(map)) : "memory");
}

/// Starts a copy of the map's box at (column, row) to shared memory. All of the box's bytes count on
/// `barrier`, also those outside the matrix, which arrive as zeros.
__device__ __forceinline__ void map_load(std::uint32_t shared, const void* map, int column, int row,
                                         Barrier barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(shared),
      "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(column), "r"(row), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void map_load(std::uint32_t shared, const void* map, int column, int row,
                                         Barrier barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(shared),
      "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
/// The same of a map with planes: its boxes at (column, row) of the planes from `plane` on.
__device__ __forceinline__ void map_load(std::uint32_t shared, const void* map, int column, int row,
                                         int plane, Barrier barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared),
      "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(column), "r"(row), "r"(plane)
      : "memory");
}

}  // namespace mlxn::sm90
