#include <arm_neon.h>

#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::i8mm {
namespace {
constexpr int kBytes = 16;
typedef std::int32_t VectorI __attribute__((vector_size(kBytes)));
typedef std::int8_t VectorB __attribute__((vector_size(kBytes)));
inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
#define MLXN_INT8_MACS 32
inline VectorI dot(VectorI sum, VectorB x, VectorB y) { return (VectorI)vmmlaq_s32((int32x4_t)sum, (int8x16_t)x, (int8x16_t)y); }
}  // namespace
#include "backends/cpu/ceilings_body.h"
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, &int8_loop, kInt8Ops};
}  // namespace mlxn::cpu::i8mm
