#include <arm_neon.h>

#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::dotprod {
namespace {
constexpr int kBytes = 16;
inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
}  // namespace
#include "backends/cpu/ceilings_body.h"
namespace {
float int8_loop(std::uint64_t rounds) {
  int32x4_t acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = vdupq_n_s32(i);
  const int8x16_t x = vdupq_n_s8(static_cast<std::int8_t>(rounds & 1)), y = vdupq_n_s8(1);
  for (std::uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) acc[i] = vdotq_s32(acc[i], x, y);
  }
  int32x4_t sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = vaddq_s32(sum, acc[i]);
  return static_cast<float>(vgetq_lane_s32(sum, 0));
}
}  // namespace
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, &int8_loop, 2 * kChains * 16};
}  // namespace mlxn::cpu::dotprod
