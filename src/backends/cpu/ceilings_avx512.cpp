#include <immintrin.h>

#include "backends/cpu/ceilings.h"

namespace mlxn::cpu::avx512 {
namespace {
constexpr int kBytes = 64;
inline __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
}  // namespace
#include "backends/cpu/ceilings_body.h"
namespace {
float int8_loop(std::uint64_t rounds) {
  __m512i acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_epi32(i);
  const __m512i x = _mm512_set1_epi8(static_cast<char>(rounds & 1)), y = _mm512_set1_epi8(1);
  for (std::uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], x, y);
  }
  __m512i sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_epi32(sum, acc[i]);
  alignas(64) int lanes[16];
  _mm512_store_si512(lanes, sum);
  return static_cast<float>(lanes[0]);
}
}  // namespace
const CeilingLoops kCeilingLoops = {&read_loop, &f32_loop, kF32Ops, &int8_loop, 2 * kChains * 64};
}  // namespace mlxn::cpu::avx512
