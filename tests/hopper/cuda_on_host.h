// Runs a Hopper kernel's own source on the host, a fiber per thread of one block at a time, so that layouts,
// index maps, barrier phases and the order of roles are tested where there is no GPU. The instructions of
// src/cuda_blocks/*.cuh have stand-ins in host/cuda_blocks/; collectives and matrix instructions follow the
// lane maps of the PTX manual.
//
// A block in which no thread can go on is reported as a hang. Copies arrive late: their target holds 0xff
// until then.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__
#define __align__(n) __attribute__((aligned(n)))

struct uint2 {
  std::uint32_t x, y;
};
struct uint4 {
  std::uint32_t x, y, z, w;
};
struct int2 {
  std::int32_t x, y;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx;

inline uint2 make_uint2(std::uint32_t x, std::uint32_t y) { return {x, y}; }
inline uint4 make_uint4(std::uint32_t x, std::uint32_t y, std::uint32_t z, std::uint32_t w) {
  return {x, y, z, w};
}
inline int2 make_int2(std::int32_t x, std::int32_t y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace cuda_on_host {

inline constexpr std::uint32_t kSharedBytes = 232448;  // what a block may have on Hopper
inline constexpr std::uint32_t kClusterSharedBytes = kSharedBytes;  // what a block of a cluster may have here
inline constexpr unsigned kMaxCluster = 8;

/// Runs the blocks, as many at a time as a cluster has, one cluster after the other; the error, empty if all threads of all blocks
/// came to their end. The shared memory of a cluster's block r begins at sm90::shared + r * kClusterSharedBytes.
std::string run(unsigned blocks, unsigned threads, const std::function<void()>& kernel, unsigned cluster = 1);

/// Place of the thread's block in its cluster.
unsigned cluster_rank();
/// Of all threads of the cluster, in two halves.
void cluster_arrive();
void cluster_wait();

/// The thread goes on when `ready` says so.
void wait_for(const std::function<bool()>& ready);
/// Every lane of the warp gives `size` bytes (at most 64) and gets those of all lanes, one behind the other.
const std::uint8_t* exchange(const void* mine, std::size_t size);
void block_barrier(int id, unsigned threads);
void start_copy(std::uint32_t shared, const void* global, std::uint32_t bytes, std::uint32_t barrier);
/// Sixteen bytes, the first `bytes` of them copied, that only finish_own_copies of the same thread waits for.
void start_own_copy(std::uint32_t to, const void* global, std::uint32_t bytes);
void finish_own_copies();
void fail(const std::string& what);
std::uint32_t shared_offset(const void* p);

/// mbarriers, by their offset in shared memory.
void barrier_init(std::uint32_t barrier, std::uint32_t arrivals);
void barrier_arrive(std::uint32_t barrier, std::uint32_t expected_bytes);
/// Bytes that a store to the barrier's block brings.
void barrier_complete(std::uint32_t barrier, std::uint32_t bytes);
bool barrier_has_ended(std::uint32_t barrier, std::uint32_t parity);

/// Whether this thread has waited for the kernel before.
void set_waited();
bool has_waited();

}  // namespace cuda_on_host

namespace mlxn::sm90 {
extern std::uint8_t shared[cuda_on_host::kMaxCluster * cuda_on_host::kClusterSharedBytes];
}

template <class T>
T __shfl_xor_sync(std::uint32_t, T value, int mask) {
  T out;
  std::memcpy(&out,
              cuda_on_host::exchange(&value, sizeof(T)) +
                  ((threadIdx.x % 32) ^ static_cast<unsigned>(mask)) * sizeof(T),
              sizeof(T));
  return out;
}
template <class T>
T __shfl_sync(std::uint32_t, T value, int lane) {
  T out;
  std::memcpy(&out, cuda_on_host::exchange(&value, sizeof(T)) + static_cast<unsigned>(lane) * sizeof(T),
              sizeof(T));
  return out;
}
inline std::uint32_t __ballot_sync(std::uint32_t, bool vote) {
  const std::uint8_t mine = vote ? 1 : 0;
  const std::uint8_t* votes = cuda_on_host::exchange(&mine, 1);
  std::uint32_t all = 0;
  for (unsigned lane = 0; lane < 32; ++lane) all |= static_cast<std::uint32_t>(votes[lane]) << lane;
  return all;
}
inline bool __any_sync(std::uint32_t mask, bool vote) { return __ballot_sync(mask, vote) != 0; }
inline void __syncwarp() {
  const char nothing = 0;
  cuda_on_host::exchange(&nothing, 1);
}
void __syncthreads();
inline void __threadfence() {}
template <class T>
T __ldcg(const T* p) {
  if (!cuda_on_host::has_waited()) cuda_on_host::fail("read of what the kernel before may write");
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T) != 0) cuda_on_host::fail("misaligned load");
  return *p;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}
inline std::uint32_t atomicAdd(std::uint32_t* p, std::uint32_t value) {
  const std::uint32_t old = *p;
  *p += value;
  return old;
}
inline std::uint32_t atomicOr(std::uint32_t* p, std::uint32_t value) {
  const std::uint32_t old = *p;
  *p |= value;
  return old;
}
inline std::uint32_t __byte_perm(std::uint32_t a, std::uint32_t b, std::uint32_t select) {
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t at = select >> (4 * i) & 7;
    out |= ((at < 4 ? a >> (8 * at) : b >> (8 * (at - 4))) & 0xffu) << (8 * i);
  }
  return out;
}
template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline std::uint32_t __float_as_uint(float v) { return bits_as<std::uint32_t>(v); }
inline std::int32_t __float_as_int(float v) { return bits_as<std::int32_t>(v); }
inline float __uint_as_float(std::uint32_t v) { return bits_as<float>(v); }
inline float __int_as_float(std::int32_t v) { return bits_as<float>(v); }
inline float __int2float_rn(std::int32_t v) { return static_cast<float>(v); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline std::int32_t __float2int_rn(float v) {
  if (v != v) return 0;
  if (v >= 2147483648.0f) return 2147483647;
  if (v <= -2147483648.0f) return -2147483647 - 1;
  return static_cast<std::int32_t>(__builtin_nearbyintf(v));
}
inline std::uint32_t min(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }
inline std::uint32_t max(std::uint32_t a, std::uint32_t b) { return a > b ? a : b; }
