#include <arm_neon.h>

#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::neon {
namespace {
constexpr int kBytes = 16;
inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
}  // namespace
#include "backends/cpu/ceilings_body.h"
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, nullptr, 0};
}  // namespace mlxn::cpu::neon
