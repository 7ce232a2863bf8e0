#pragma once

// The dialect's face for nvcc. Compiled without fast-math: divisions and square roots are rounded correctly, subnormals stay.

#include <cuda_fp16.h>

#define MLXN_SHARED
#define MLXN_SITE
#define MLXN_HERE
#define MLXN_AT_SITE
#define MLXN_FN __device__ __forceinline__
#define MLXN_UNROLL _Pragma("unroll")

namespace mlxn {
namespace gpu {

MLXN_FN float float_from_bits(uint32_t bits) { return __uint_as_float(bits); }
MLXN_FN uint32_t float_bits(float v) { return __float_as_uint(v); }
MLXN_FN float f16_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
MLXN_FN uint16_t float_to_f16(float v) { return v != v ? uint16_t(0x7e00u) : __half_as_ushort(__float2half_rn(v)); }

// Within 2 units in the last place of f32.
MLXN_FN float exp(float x) { return ::expf(x); }
MLXN_FN float log(float x) { return ::logf(x); }
MLXN_FN float tanh(float x) { return ::tanhf(x); }
MLXN_FN float sin(float x) { return ::sinf(x); }
MLXN_FN float cos(float x) { return ::cosf(x); }
MLXN_FN float sqrt(float x) { return ::sqrtf(x); }
MLXN_FN float abs(float x) { return ::fabsf(x); }
MLXN_FN float floor(float x) { return ::floorf(x); }
MLXN_FN float rint(float x) { return ::rintf(x); }
MLXN_FN float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
MLXN_FN float mul_rn(float a, float b) { return __fmul_rn(a, b); }
MLXN_FN float add_rn(float a, float b) { return __fadd_rn(a, b); }

using f32x4 = ::float4;
using u32x2 = ::uint2;
using u32x4 = ::uint4;
template <class T>
MLXN_FN T load_wide(const T* p) {
  return *p;
}
template <class T>
MLXN_FN void store_wide(T* p, T v) {
  *p = v;
}

MLXN_FN uint32_t byte_permute(uint32_t low, uint32_t high, uint32_t selectors) { return ::__byte_perm(low, high, selectors); }

struct Words4 {
  uint32_t w[4];
};
MLXN_FN Words4 load_words4(const uint8_t* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  return Words4{{v.x, v.y, v.z, v.w}};
}

/// See simt.h.
class Thread {
 public:
  uint3 group;
  uint3 groups;
  uint32_t index;

  MLXN_FN uint32_t lane() const { return index % 32; }
  MLXN_FN uint32_t simd() const { return index / 32; }
  MLXN_FN void barrier() const { __syncthreads(); }
  MLXN_FN void simd_barrier() const { __syncwarp(); }
  template <class T>
  MLXN_FN T shuffle(T v, uint32_t from) const {
    return __shfl_sync(0xffffffffu, v, int(from));
  }
  template <class T>
  MLXN_FN T shuffle_xor(T v, uint32_t mask) const {
    return __shfl_xor_sync(0xffffffffu, v, int(mask));
  }
  MLXN_FN uint32_t ballot(bool v) const { return __ballot_sync(0xffffffffu, v); }
};

MLXN_FN uint32_t atomic_add(uint32_t* p, uint32_t v) { return ::atomicAdd(p, v); }

}  // namespace gpu
}  // namespace mlxn
