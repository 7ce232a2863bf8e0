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

inline float larger_magnitude(float a, float b) {
  a = __builtin_fabsf(a), b = __builtin_fabsf(b);
  return a != a || a > b ? a : b;
}

}  // namespace mlxn::sm90
