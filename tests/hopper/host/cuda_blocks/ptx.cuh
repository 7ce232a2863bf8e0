// Stand-in of src/cuda_blocks/ptx.cuh on the host.
#pragma once

#include "cuda_on_host.h"

namespace mlxn::sm90 {

inline std::uint32_t shared_address(const void* p) { return cuda_on_host::shared_offset(p); }
inline void dependency_wait() { cuda_on_host::set_waited(); }
inline void dependency_launch() {}
inline void named_barrier(int id, int threads) {
  cuda_on_host::block_barrier(id, static_cast<unsigned>(threads));
}
inline bool elect_lane() { return threadIdx.x % 32 == 0; }

float f16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);
inline float2 f16x2_to_f32(std::uint32_t bits) {
  return {f16_to_f32(static_cast<std::uint16_t>(bits)), f16_to_f32(static_cast<std::uint16_t>(bits >> 16))};
}
inline std::uint32_t f32_to_f16x2(float low, float high) {
  return f32_to_f16(low) | static_cast<std::uint32_t>(f32_to_f16(high)) << 16;
}
inline std::uint32_t f32_to_bf16x2(float low, float high) {  // finite values only
  const auto rounded = [](float v) {
    const std::uint32_t bits = __float_as_uint(v);
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}

inline std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t select) {
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t at = select >> (4 * i) & 7;
    const std::uint32_t byte = (at < 4 ? a >> (8 * at) : b >> (8 * (at - 4))) & 0xffu;
    const bool is_sign = (select >> (4 * i) & 8) != 0;
    out |= (is_sign ? (byte & 0x80u ? 0xffu : 0u) : byte) << (8 * i);
  }
  return out;
}

inline std::uint32_t multiply_add(std::uint32_t a, std::uint32_t b, std::uint32_t c) { return a * b + c; }
inline std::uint32_t in_register(std::uint32_t constant) { return constant; }

inline float larger_magnitude(float a, float b) {
  a = __builtin_fabsf(a), b = __builtin_fabsf(b);
  return a != a || a > b ? a : b;
}

inline float exp2_approx(float x) {
  const float y = __builtin_exp2f(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}

}  // namespace mlxn::sm90
