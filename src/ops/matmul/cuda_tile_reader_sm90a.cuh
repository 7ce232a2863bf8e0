// Of cuda_tile_sm90a.cuh: how consumers read weights in shared memory: the table of types that look up, half records,
// scales of other lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/matmul/cuda_tile_config_sm90a.cuh"

namespace mlxn::tile {

/// Where a block's shared memory begins, below which the system has its own. Addresses of a block in a cluster have
/// its number in their highest byte.
constexpr std::uint32_t kSharedBase = 1024;
/// The table of types that look up, as a lane sees it.
template <class C>
__device__ __forceinline__ PairTable table_of(std::uint32_t shared, std::uint32_t lane) {
  return {kSharedBase + C::kTable, C::kTableStride, lane * 4 | (shared - kSharedBase)};
}
/// By all consumers, while the first weights are on their way.
template <class C>
__device__ __forceinline__ void make_table(std::uint32_t shared) {
  using F = typename C::Format;
  using Codes = std::conditional_t<C::kIsFew || C::kByRecord, typename F::Codes, typename F::WholeCodes>;
  constexpr std::uint32_t kConsumers = C::kThreads - 128;
  const std::uint32_t column = threadIdx.x % 8 * 16;  // four copies of an entry at a time
#pragma unroll 1
  for (std::uint32_t byte = (threadIdx.x - 128) / 8; byte < 256; byte += kConsumers / 8) {
    const std::uint32_t pair = Codes::pair(byte);
    const std::uint32_t to = shared + C::kTable + byte * C::kTableStride + column;
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(pair) : "memory");
  }
  sm90::named_barrier(1, kConsumers);
}

/// Bytes of a half record in shared memory. Where it came in two pieces, the second lies `kGap` bytes further
/// than it would in one.
template <std::uint32_t kPiece, std::uint32_t kGap>
struct SharedReader {
  std::uint32_t base;
  PairTable pairs;

  __device__ __forceinline__ PairTable table() const { return pairs; }

  __device__ __forceinline__ std::uint32_t at(std::uint32_t offset) const {
    if constexpr (kGap == 0) return base + offset;
    return base + offset + (offset >= kPiece ? kGap : 0u);
  }
  __device__ __forceinline__ Words4 words4(std::uint32_t offset) const {
    Words4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                 : "r"(at(offset))
                 : "memory");
    return v;
  }
  __device__ __forceinline__ void words2(std::uint32_t offset, std::uint32_t& a, std::uint32_t& b) const {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "r"(at(offset)) : "memory");
  }
  __device__ __forceinline__ std::uint32_t u32(std::uint32_t offset) const {
    std::uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at(offset)) : "memory");
    return v;
  }
  __device__ __forceinline__ std::uint32_t u16(std::uint32_t offset) const {
    std::uint16_t v;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(at(offset)) : "memory");
    return v;
  }
};

/// Words between the four lanes of a row.
struct ShareInRow {
  std::uint32_t lane;
  template <class Own>
  __device__ __forceinline__ std::uint32_t operator()(const Own& own, int word, int of) const {
    return __shfl_sync(~0u, own.w[word], (lane & 28u) | of);
  }
};

/// The same of kWords words for each half of a record, fetched at once before they are wanted.
template <int kWords>
struct SharedInRow {
  std::uint32_t w[4 * kWords];

  template <int kHalf, class Own>
  __device__ __forceinline__ void fetch(const Own& own, ShareInRow share) {
#pragma unroll
    for (int of = 0; of < 4; ++of) {
#pragma unroll
      for (int word = 0; word < kWords; ++word) w[of * kWords + word] = share(own, kHalf * kWords + word, of);
    }
  }
  template <class Own>
  __device__ __forceinline__ std::uint32_t operator()(const Own&, int word, int of) const {
    return w[of * kWords + word % kWords];
  }
};
/// None: fetched where they are wanted.
template <>
struct SharedInRow<0> : ShareInRow {
  template <int kHalf, class Own>
  __device__ __forceinline__ void fetch(const Own&, ShareInRow share) { lane = share.lane; }
};

}  // namespace mlxn::tile
