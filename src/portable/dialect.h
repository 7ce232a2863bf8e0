#pragma once

// The language of the portable GPU kernels: C++14 with `if constexpr`, compiled by nvcc, by Apple's compiler and, for the
// emulator, as host C++. docs/kernel_dialect.md explains it with an example.
//
// A kernel is a type:
//   using Args = ...;                       // launch struct, by value (portable/args.h)
//   static constexpr uint32_t kThreads = 256;  // threads of a group, a multiple of kSimdWidth, at most 1024
//   struct Shared { ... };                  // shared memory of a group, at most 48 KiB (32 KiB on Metal); NoShared if none
//   MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared);   // static
// and its header lists its instances for the build: #define MLXN_KERNELS(KERNEL) KERNEL(name, Type<...>) ...
//
// Not in the dialect: std::, lambdas, recursion, virtual functions, exceptions, static locals, double, bool or size_t in
// launch structs, warp-width literals. Structs cross global and shared memory by load() and store() only.

#include "portable/args.h"

#if defined(__CUDACC__)
#include "portable/cuda.h"
#elif defined(__METAL_VERSION__)
#include "portable/metal.h"
#else
#include "portable/simt.h"
#endif

namespace mlxn {
namespace gpu {

/// Threads that run collectives together: a warp, a SIMD-group.
constexpr uint32_t kSimdWidth = 32;

/// IEEE binary16 and bfloat16 as they lie in memory.
struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

struct NoShared {};

// ---- numbers in memory ------------------------------------------------------------------------------------------------
// Conversions round to nearest even; f16 overflows to infinity.

MLXN_FN float to_float(float v) { return v; }
MLXN_FN float to_float(f16 v) { return f16_to_float(v.bits); }
MLXN_FN float to_float(bf16 v) { return float_from_bits(uint32_t(v.bits) << 16); }

MLXN_FN uint16_t bf16_bits(float v) {
  const uint32_t bits = float_bits(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t((bits >> 16) | 0x40u);  // a NaN stays one, made quiet
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
template <class T>
struct Convert;
template <>
struct Convert<float> {
  static MLXN_FN float from(float v) { return v; }
};
template <>
struct Convert<f16> {
  static MLXN_FN f16 from(float v) {
    f16 h;
    h.bits = float_to_f16(v);
    return h;
  }
};
template <>
struct Convert<bf16> {
  static MLXN_FN bf16 from(float v) {
    bf16 h;
    h.bits = bf16_bits(v);
    return h;
  }
};
template <class T>
MLXN_FN T from_float(float v) {
  return Convert<T>::from(v);
}

/// An element as f32, and an f32 as an element.
MLXN_FN float load(MLXN_GLOBAL const float* p) { return *p; }
MLXN_FN float load(MLXN_GLOBAL const f16* p) { return f16_to_float(p->bits); }
MLXN_FN float load(MLXN_GLOBAL const bf16* p) { return float_from_bits(uint32_t(p->bits) << 16); }
MLXN_FN void store(MLXN_GLOBAL float* p, float v) { *p = v; }
MLXN_FN void store(MLXN_GLOBAL f16* p, float v) { p->bits = float_to_f16(v); }
MLXN_FN void store(MLXN_GLOBAL bf16* p, float v) { p->bits = bf16_bits(v); }

/// Four floats of global or shared memory, 16-byte aligned.
MLXN_FN f32x4 load_f32x4(MLXN_GLOBAL const float* p) { return load_wide((MLXN_GLOBAL const f32x4*)p); }
MLXN_FN f32x4 shared_f32x4(MLXN_SHARED const float* p) { return load_wide((MLXN_SHARED const f32x4*)p); }

/// kCount (4 or 8) elements as floats; the address is a multiple of their size together, at most of 16 bytes.
template <uint32_t kCount>
MLXN_FN void load_run(MLXN_GLOBAL const float* p, float* out) {
  for (uint32_t i = 0; i < kCount; i += 4) {
    const f32x4 v = load_f32x4(p + i);
    out[i] = v.x, out[i + 1] = v.y, out[i + 2] = v.z, out[i + 3] = v.w;
  }
}
template <uint32_t kCount>
MLXN_FN void load_run(MLXN_GLOBAL const f16* p, float* out) {
  static_assert(kCount == 4 || kCount == 8, "8 or 16 bytes");
  if constexpr (kCount == 4) {
    const u32x2 v = load_wide((MLXN_GLOBAL const u32x2*)p);
    out[0] = f16_to_float(uint16_t(v.x)), out[1] = f16_to_float(uint16_t(v.x >> 16));
    out[2] = f16_to_float(uint16_t(v.y)), out[3] = f16_to_float(uint16_t(v.y >> 16));
  } else {
    const u32x4 v = load_wide((MLXN_GLOBAL const u32x4*)p);
    out[0] = f16_to_float(uint16_t(v.x)), out[1] = f16_to_float(uint16_t(v.x >> 16));
    out[2] = f16_to_float(uint16_t(v.y)), out[3] = f16_to_float(uint16_t(v.y >> 16));
    out[4] = f16_to_float(uint16_t(v.z)), out[5] = f16_to_float(uint16_t(v.z >> 16));
    out[6] = f16_to_float(uint16_t(v.w)), out[7] = f16_to_float(uint16_t(v.w >> 16));
  }
}

template <uint32_t kCount>
MLXN_FN void load_run(MLXN_GLOBAL const bf16* p, float* out) {
  static_assert(kCount == 4, "8 bytes");
  const u32x2 v = load_wide((MLXN_GLOBAL const u32x2*)p);
  out[0] = float_from_bits(v.x << 16), out[1] = float_from_bits(v.x & 0xffff0000u);
  out[2] = float_from_bits(v.y << 16), out[3] = float_from_bits(v.y & 0xffff0000u);
}
/// The other way: four floats as elements, rounded to nearest even.
MLXN_FN void store_run(MLXN_GLOBAL float* p, const float* v) {
  f32x4 q;
  q.x = v[0], q.y = v[1], q.z = v[2], q.w = v[3];
  store_wide((MLXN_GLOBAL f32x4*)p, q);
}
MLXN_FN void store_run(MLXN_GLOBAL f16* p, const float* v) {
  u32x2 q;
  q.x = float_to_f16(v[0]) | uint32_t(float_to_f16(v[1])) << 16;
  q.y = float_to_f16(v[2]) | uint32_t(float_to_f16(v[3])) << 16;
  store_wide((MLXN_GLOBAL u32x2*)p, q);
}
MLXN_FN void store_run(MLXN_GLOBAL bf16* p, const float* v) {
  u32x2 q;
  q.x = bf16_bits(v[0]) | uint32_t(bf16_bits(v[1])) << 16;
  q.y = bf16_bits(v[2]) | uint32_t(bf16_bits(v[3])) << 16;
  store_wide((MLXN_GLOBAL u32x2*)p, q);
}

/// A number of the launch.
MLXN_FN int64_t load(const Index& index) { return index.at ? *index.at : index.value; }

/// Words of a block, from an address that is a multiple of 4 (load_u32), of 2 (load_u32_2), or any (load_u32_1).
MLXN_FN uint32_t load_u16(MLXN_GLOBAL const uint8_t* p) { return *(MLXN_GLOBAL const uint16_t*)p; }
MLXN_FN uint32_t load_u16_1(MLXN_GLOBAL const uint8_t* p) { return p[0] | uint32_t(p[1]) << 8; }
MLXN_FN uint32_t load_u32(MLXN_GLOBAL const uint8_t* p) { return *(MLXN_GLOBAL const uint32_t*)p; }
MLXN_FN uint32_t load_u32_2(MLXN_GLOBAL const uint8_t* p) { return load_u16(p) | load_u16(p + 2) << 16; }
MLXN_FN uint32_t load_u32_1(MLXN_GLOBAL const uint8_t* p) { return load_u16_1(p) | load_u16_1(p + 2) << 16; }

// ---- small functions --------------------------------------------------------------------------------------------------

template <class T>
MLXN_FN T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
MLXN_FN T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
MLXN_FN T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
MLXN_FN bool is_nan(float v) { return (float_bits(v) & 0x7fffffffu) > 0x7f800000u; }
constexpr uint32_t kInfinityBits = 0x7f800000u;
MLXN_FN float infinity() { return float_from_bits(kInfinityBits); }
MLXN_FN float nan() { return float_from_bits(0x7fc00000u); }

/// A number that grows with v, for numbers other than NaN; -0 lies below +0. And back.
MLXN_FN uint32_t ascending_bits(float v) {
  const uint32_t bits = float_bits(v);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
}
MLXN_FN float from_ascending_bits(uint32_t bits) { return float_from_bits(bits ^ (bits >> 31 != 0 ? 0x80000000u : 0xffffffffu)); }

/// The upper half of a product of 128 bits.
MLXN_FN uint64_t upper_product(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  const uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32);  // at most (2^32 - 1) 2^32
  const uint64_t other = a0 * b1 + (middle & 0xffffffffu);
  return a1 * b1 + (middle >> 32) + (other >> 32);
}

// ---- collectives of a SIMD-group --------------------------------------------------------------------------------------
// Every lane of the SIMD-group takes part. The order of additions is the same on every device: a butterfly, so that all
// lanes get the same bits.
// A function that calls collectives may take MLXN_SITE as its last parameter, without a comma, and hand it on to them by
// MLXN_AT_SITE (to a barrier: MLXN_HERE): the emulator then reports the place in the kernel that called it.

MLXN_FN float simd_sum(const Thread& t, float v MLXN_SITE) {
  for (uint32_t step = kSimdWidth / 2; step > 0; step /= 2) v += t.shuffle_xor(v, step MLXN_AT_SITE);
  return v;
}
MLXN_FN uint32_t simd_sum(const Thread& t, uint32_t v MLXN_SITE) {
  for (uint32_t step = kSimdWidth / 2; step > 0; step /= 2) v += t.shuffle_xor(v, step MLXN_AT_SITE);
  return v;
}
/// NaN loses to any number; of zeros +0 wins, so that all lanes get the same bits.
MLXN_FN float simd_max(const Thread& t, float v MLXN_SITE) {
  for (uint32_t step = kSimdWidth / 2; step > 0; step /= 2) {
    const float other = t.shuffle_xor(v, step MLXN_AT_SITE);
    if (other == v) {
      v = float_from_bits(float_bits(v) & float_bits(other));
    } else if (other > v || is_nan(v)) {
      v = other;
    }
  }
  return v;
}
MLXN_FN uint64_t simd_max(const Thread& t, uint64_t v MLXN_SITE) {
  for (uint32_t step = kSimdWidth / 2; step > 0; step /= 2) {
    const uint64_t upper = t.shuffle_xor(uint32_t(v >> 32), step MLXN_AT_SITE);
    v = max(v, upper << 32 | t.shuffle_xor(uint32_t(v), step MLXN_AT_SITE));
  }
  return v;
}
/// The sum over this lane and those before it.
template <class T>
MLXN_FN T simd_prefix_sum(const Thread& t, T v MLXN_SITE) {
  for (uint32_t step = 1; step < kSimdWidth; step *= 2) {
    const T below = t.shuffle(v, t.lane() >= step ? t.lane() - step : 0 MLXN_AT_SITE);
    if (t.lane() >= step) v += below;
  }
  return v;
}
MLXN_FN uint64_t simd_prefix_sum(const Thread& t, uint64_t v MLXN_SITE) {
  for (uint32_t step = 1; step < kSimdWidth; step *= 2) {
    const uint32_t from = t.lane() >= step ? t.lane() - step : 0;
    const uint64_t upper = t.shuffle(uint32_t(v >> 32), from MLXN_AT_SITE);
    const uint64_t below = upper << 32 | t.shuffle(uint32_t(v), from MLXN_AT_SITE);
    if (t.lane() >= step) v += below;
  }
  return v;
}

// ---- collectives of a group -------------------------------------------------------------------------------------------
// `scratch` has one element per SIMD-group of the group. It may be given to the next of these functions at once; before other
// stores to it there has to be a barrier.

template <uint32_t kThreads>
MLXN_FN float group_sum(const Thread& t, float v, MLXN_SHARED float* scratch MLXN_SITE) {
  constexpr uint32_t kGroups = kThreads / kSimdWidth;
  v = simd_sum(t, v MLXN_AT_SITE);
  if (kGroups == 1) return v;
  t.barrier(MLXN_HERE);
  if (t.lane() == 0) scratch[t.simd()] = v;
  t.barrier(MLXN_HERE);
  return simd_sum(t, t.lane() < kGroups ? scratch[t.lane()] : 0.0f MLXN_AT_SITE);
}
template <uint32_t kThreads>
MLXN_FN float group_max(const Thread& t, float v, MLXN_SHARED float* scratch MLXN_SITE) {
  constexpr uint32_t kGroups = kThreads / kSimdWidth;
  v = simd_max(t, v MLXN_AT_SITE);
  if (kGroups == 1) return v;
  t.barrier(MLXN_HERE);
  if (t.lane() == 0) scratch[t.simd()] = v;
  t.barrier(MLXN_HERE);
  return simd_max(t, t.lane() < kGroups ? scratch[t.lane()] : nan() MLXN_AT_SITE);
}
template <uint32_t kThreads>
MLXN_FN uint64_t group_max(const Thread& t, uint64_t v, MLXN_SHARED uint64_t* scratch MLXN_SITE) {
  constexpr uint32_t kGroups = kThreads / kSimdWidth;
  v = simd_max(t, v MLXN_AT_SITE);
  if (kGroups == 1) return v;
  t.barrier(MLXN_HERE);
  if (t.lane() == 0) scratch[t.simd()] = v;
  t.barrier(MLXN_HERE);
  return simd_max(t, t.lane() < kGroups ? scratch[t.lane()] : 0 MLXN_AT_SITE);
}

}  // namespace gpu
}  // namespace mlxn
