// Single instructions of sm_90a as functions, and the small conversions the kernels share. No standard
// headers: what is here is read by every .cu file.
#pragma once

#include <cstdint>

namespace mlxn::sm90 {

/// Address of shared memory as the instructions take it.
__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Blocks until all kernels this launch depends on have finished and their writes are visible. Returns at
/// once in a launch without programmatic dependence.
__device__ __forceinline__ void dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/// Lets the next kernel of the stream start as soon as every block has said so and there is room for its
/// blocks.
__device__ __forceinline__ void dependency_launch() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/// Barrier of `threads` threads (whole warps) under a number 1..15; 0 is __syncthreads.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// 1 in one lane of a converged warp, 0 in the others.
__device__ __forceinline__ bool elect_lane() {
  std::uint32_t is_elected;
  asm volatile("{\n .reg .pred p;\n elect.sync _|p, 0xffffffff;\n selp.u32 %0, 1, 0, p;\n}"
               : "=r"(is_elected));
  return is_elected != 0;
}

__device__ __forceinline__ float f16_to_f32(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

/// The two halves of a word as f32, lower one first.
__device__ __forceinline__ float2 f16x2_to_f32(std::uint32_t bits) {
  return make_float2(f16_to_f32(static_cast<std::uint16_t>(bits)),
                     f16_to_f32(static_cast<std::uint16_t>(bits >> 16)));
}

/// Two values rounded to nearest f16; `low` goes to the lower half.
__device__ __forceinline__ std::uint32_t f32_to_f16x2(float low, float high) {
  std::uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

/// The same as bf16.
__device__ __forceinline__ std::uint32_t f32_to_bf16x2(float low, float high) {
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

/// Byte i is the one of b:a that nibble i of `select` names, 0..7; 8 more: its sign in all bits.
__device__ __forceinline__ std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b,
                                                       std::uint32_t select) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(a), "r"(b), "r"(select));
  return bytes;
}

/// The larger of two magnitudes; NaN if either is.
__device__ __forceinline__ float larger_magnitude(float a, float b) {
  float larger;
  asm("{\n .reg .f32 a, b;\n abs.f32 a, %1;\n abs.f32 b, %2;\n max.NaN.f32 %0, a, b;\n}"
      : "=f"(larger)
      : "f"(a), "f"(b));
  return larger;
}

/// 2^x within 2^-22 of its size, 0 below the normal numbers; exactly 1 for 0, 0 for -inf, NaN for NaN.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// A constant that lies in a register from here on, in a converged warp: the compiler knows neither that it is
/// one (zero is the thread's y) nor how to make it again, which it prefers to a register held.
__device__ __forceinline__ std::uint32_t in_register(std::uint32_t constant) {
  std::uint32_t y;
  asm volatile(
      "{\n .reg .u32 a;\n mov.u32 a, %%tid.y;\n add.u32 a, a, %1;\n shfl.sync.idx.b32 %0, a, 0, 31, "
      "0xffffffff;\n}"
      : "=r"(y)
      : "r"(constant));
  return y;
}

/// a * b + c as it is written: not as logic or shifts if b allows those.
__device__ __forceinline__ std::uint32_t multiply_add(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

__device__ __forceinline__ void store_u32(std::uint32_t shared, std::uint32_t bits) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(bits) : "memory");
}

}  // namespace mlxn::sm90
