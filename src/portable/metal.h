#pragma once

// The dialect's face for Apple's compiler, MSL 3.1 without fast-math.

#include <metal_stdlib>

#define MLXN_SHARED threadgroup
#define MLXN_SITE
#define MLXN_HERE
#define MLXN_AT_SITE
#define MLXN_FN inline
#define MLXN_UNROLL _Pragma("clang loop unroll(full)")

namespace mlxn {
namespace gpu {

MLXN_FN float float_from_bits(uint32_t bits) { return as_type<float>(bits); }
MLXN_FN uint32_t float_bits(float v) { return as_type<uint32_t>(v); }
MLXN_FN float f16_to_float(uint16_t bits) { return float(as_type<half>(bits)); }
MLXN_FN uint16_t float_to_f16(float v) { return v != v ? uint16_t(0x7e00u) : as_type<uint16_t>(half(v)); }

MLXN_FN float exp(float x) { return metal::precise::exp(x); }
MLXN_FN float log(float x) { return metal::precise::log(x); }
MLXN_FN float tanh(float x) { return metal::precise::tanh(x); }
MLXN_FN float sin(float x) { return metal::precise::sin(x); }
MLXN_FN float cos(float x) { return metal::precise::cos(x); }
MLXN_FN float sqrt(float x) { return metal::precise::sqrt(x); }
MLXN_FN float abs(float x) { return metal::fabs(x); }
MLXN_FN float floor(float x) { return metal::floor(x); }
MLXN_FN float rint(float x) { return metal::rint(x); }
MLXN_FN float fma(float a, float b, float c) { return metal::fma(a, b, c); }
MLXN_FN float mul_rn(float a, float b) {
#pragma clang fp contract(off)
  return a * b;
}
MLXN_FN float add_rn(float a, float b) {
#pragma clang fp contract(off)
  return a + b;
}

using f32x4 = metal::float4;
using u32x2 = metal::uint2;
using u32x4 = metal::uint4;
template <class T>
MLXN_FN T load_wide(device const T* p) {
  return *p;
}
template <class T>
MLXN_FN T load_wide(threadgroup const T* p) {
  return *p;
}
template <class T>
MLXN_FN void store_wide(device T* p, T v) {
  *p = v;
}

MLXN_FN uint32_t byte_permute(uint32_t low, uint32_t high, uint32_t selectors) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  uint32_t out = 0;
  MLXN_UNROLL
  for (uint32_t i = 0; i < 4; ++i) out |= (uint32_t(bytes >> (selectors >> 4 * i & 7u) * 8) & 0xffu) << 8 * i;
  return out;
}

struct Words4 {
  uint32_t w[4];
};
MLXN_FN Words4 load_words4(device const uint8_t* p) {
  const metal::uint4 v = *(device const metal::uint4*)p;
  return Words4{{v.x, v.y, v.z, v.w}};
}

/// See simt.h.
struct Thread {
  metal::uint3 group;
  metal::uint3 groups;
  uint32_t index;

  uint32_t lane() const { return index % 32; }
  uint32_t simd() const { return index / 32; }
  void barrier() const { metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device); }
  void simd_barrier() const { metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device); }
  template <class T>
  T shuffle(T v, uint32_t from) const {
    return metal::simd_shuffle(v, ushort(from));
  }
  template <class T>
  T shuffle_xor(T v, uint32_t mask) const {
    return metal::simd_shuffle_xor(v, ushort(mask));
  }
  uint32_t ballot(bool v) const { return uint32_t(ulong(metal::simd_ballot(v))); }
};

MLXN_FN uint32_t atomic_add(device uint32_t* p, uint32_t v) {
  return metal::atomic_fetch_add_explicit((device metal::atomic_uint*)p, v, metal::memory_order_relaxed);
}
MLXN_FN uint32_t atomic_add(threadgroup uint32_t* p, uint32_t v) {
  return metal::atomic_fetch_add_explicit((threadgroup metal::atomic_uint*)p, v, metal::memory_order_relaxed);
}

}  // namespace gpu
}  // namespace mlxn
