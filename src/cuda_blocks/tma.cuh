// Tensor copies (cp.async.bulk.tensor): maps made on the host, loads and stores on the device.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backends/gpu/tensor_map.h"

namespace mlxn::sm90::tma {

/// Encodes a map; elements outside of it arrive as zero and count as bytes. The driver function is asked for
/// at run time so that nothing links against the driver.
inline cudaError_t make_map(CUtensorMap* map, const gpu::TensorMapSpec& d) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static Encode encode = nullptr;
  if (encode == nullptr) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    if (error != cudaSuccess) return error;
    if (found != cudaDriverEntryPointSuccess || entry == nullptr) return cudaErrorNotSupported;
    encode = reinterpret_cast<Encode>(entry);
  }
  const cuuint64_t sizes[3] = {d.columns, d.rows, d.planes};
  const cuuint64_t strides[2] = {d.row_bytes, d.plane_bytes};
  const cuuint32_t box[3] = {d.box_columns, d.box_rows, d.box_planes};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUresult result = encode(
      map, d.element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT64,
      d.planes == 0 ? 2 : 3, const_cast<std::byte*>(d.base), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, d.swizzle128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/// The map is a __grid_constant__ kernel parameter.
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(&map)) : "memory");
}

/// Copies the box at (column, row) to shared memory; its bytes are counted at `barrier`.
__device__ __forceinline__ void load(const CUtensorMap& map, uint32_t target, uint32_t barrier, int column,
                                     int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(target),
      "l"(reinterpret_cast<uint64_t>(&map)), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}

/// The same with an L2 policy (see evict_first).
__device__ __forceinline__ void load(const CUtensorMap& map, uint32_t target, uint32_t barrier, int column,
                                     int row, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(target),
      "l"(reinterpret_cast<uint64_t>(&map)), "r"(barrier), "r"(column), "r"(row), "l"(policy)
      : "memory");
}

/// To the same place in every block of the cluster named in `blocks`; each block's own barrier at that
/// address counts the bytes that it received.
__device__ __forceinline__ void load_multicast(const CUtensorMap& map, uint32_t target, uint32_t barrier,
                                               int column, int row, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(target),
      "l"(reinterpret_cast<uint64_t>(&map)), "r"(barrier), "r"(column), "r"(row), "h"(blocks)
      : "memory");
}

/// Copies a box from shared memory; the part outside the tensor is dropped. Before it, each thread that wrote
/// the box runs fence.proxy.async and the threads meet at a barrier; after it, commit_stores and
/// wait_stores_read before the box is written again.
__device__ __forceinline__ void store(const CUtensorMap& map, uint32_t source, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(
                   reinterpret_cast<uint64_t>(&map)),
               "r"(source), "r"(column), "r"(row)
               : "memory");
}
__device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

/// Policy for data read once.
__device__ __forceinline__ uint64_t evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

}  // namespace mlxn::sm90::tma
