#include <immintrin.h>

#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::avx2 {
namespace {
constexpr int kBytes = 32;
inline __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
}  // namespace
#include "backends/cpu/ceilings_body.h"
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, nullptr, 0};
}  // namespace mlxn::cpu::avx2
