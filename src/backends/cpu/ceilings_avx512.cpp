#include <immintrin.h>

#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::avx512 {
namespace {
constexpr int kBytes = 64;
typedef std::int32_t VectorI __attribute__((vector_size(kBytes)));
typedef std::int8_t VectorB __attribute__((vector_size(kBytes)));
inline __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
#define MLXN_INT8_MACS 64
inline VectorI dot(VectorI sum, VectorB x, VectorB y) { return (VectorI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)y); }
}  // namespace
#include "backends/cpu/ceilings_body.h"
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, &int8_loop, kInt8Ops};
}  // namespace mlxn::cpu::avx512
