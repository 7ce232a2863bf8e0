#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::scalar {
namespace {
constexpr int kBytes = 16;
typedef float F __attribute__((vector_size(16)));
inline F multiply_add(F a, F b, F c) { return a * b + c; }
}  // namespace
#include "backends/cpu/ceilings_body.h"
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, nullptr, 0};
}  // namespace mlxn::cpu::scalar
