#pragma once

// The measuring loops on GCC vector types of kBytes. The including file sets the namespace and the width and defines
// multiply_add(); where the instruction set multiplies bytes, it sets MLXN_INT8_MACS, the products in one instruction, and
// defines dot(), which adds them to the lanes of an accumulator.

#include <cstdint>

namespace {

typedef float VectorF __attribute__((vector_size(kBytes)));
typedef std::uint32_t VectorU __attribute__((vector_size(kBytes)));
// Enough independent chains to cover latency times ports, and few enough for the registers.
#if defined(__aarch64__)
constexpr int kChains = 20;
#else
constexpr int kChains = 12;
#endif

float read_loop(const void* data, std::uint64_t bytes) {
  const auto* p = static_cast<const VectorU*>(data);
  const std::uint64_t n = bytes / kBytes;
  VectorU a = {}, b = {}, c = {}, d = {};
  for (std::uint64_t i = 0; i < n; i += 4) {
    a ^= p[i];
    b ^= p[i + 1];
    c ^= p[i + 2];
    d ^= p[i + 3];
  }
  a ^= b ^ c ^ d;
  return static_cast<float>(a[0]);
}

float f32_loop(std::uint64_t rounds) {
  VectorF acc[kChains];
  const float seed = static_cast<float>(rounds & 1);
  for (int i = 0; i < kChains; ++i) acc[i] = VectorF{} + seed + static_cast<float>(i);
  const VectorF x = VectorF{} + 0.999f, y = VectorF{} + 0.001f;
  for (std::uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) acc[i] = multiply_add(acc[i], x, y);
  }
  VectorF sum = {};
  for (int i = 0; i < kChains; ++i) sum += acc[i];
  return sum[0];
}

constexpr std::uint64_t kF32Ops = 2 * kChains * kBytes / 4;

#if defined(MLXN_INT8_MACS)
float int8_loop(std::uint64_t rounds) {
  VectorI acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = VectorI{} + i;
  const VectorB x = VectorB{} + static_cast<std::int8_t>(rounds & 1), y = VectorB{} + std::int8_t{1};
  for (std::uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) acc[i] = dot(acc[i], x, y);
  }
  VectorI sum = {};
  for (int i = 0; i < kChains; ++i) sum ^= acc[i];
  return static_cast<float>(sum[0]);
}

constexpr std::uint64_t kInt8Ops = 2 * kChains * MLXN_INT8_MACS;
#endif

}  // namespace
