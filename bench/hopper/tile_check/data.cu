#include "tile_check/data.h"

#include <cmath>
#include <cstring>

#include "quant/codec.h"
#include "quant/gpu_weight.h"
#include "quant/random_blocks.h"
#include "quant/records.h"

namespace tile_check {

namespace {

/// Numbers of many sizes, every fourth row 2^-`spread` of the others, in rows that begin at multiples of 16
/// bytes and have NaN in the gaps.
Matrix make_dense_matrix(DType type, std::uint32_t n, std::uint32_t k, int spread, std::uint64_t seed) {
  const std::uint32_t stride = (k + 7) / 8 * 8;
  Matrix m;
  m.records.assign(std::size_t(n) * stride * 2, 0xFF);
  m.values.resize(std::size_t(n) * k);
  for (std::uint32_t row = 0; row < n; ++row) {
    float most = 0;
    for (std::uint32_t i = 0; i < k; ++i) {
      const std::uint32_t r = mix(seed + std::uint64_t(row) * k + i);
      const float v = std::ldexp(float(std::int32_t(r)), -31 - int(mix(r) % 8) - (row % 4 == 3 ? spread : 0));
      const std::uint16_t bits = type == DType::f16 ? f16(v).bits : bf16(v).bits;
      std::memcpy(&m.records[(std::size_t(row) * stride + i) * 2], &bits, 2);
      const float exact = type == DType::f16 ? float(f16::from_bits(bits)) : float(bf16::from_bits(bits));
      m.values[std::size_t(row) * k + i] = exact;
      most = std::max(most, std::fabs(exact));
    }
    int exponent = 0;
    std::frexp(most, &exponent);
    m.exponents.push_back(exponent);
  }
  return m;
}

__global__ void random_x(void* x, float* exact, long long count, int k, int spread, unsigned type,
                         std::uint64_t seed) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const float u = (mix(seed + 2 * i) + 1.0f) / 4294967552.0f;
    const float v = mix(seed + 2 * i + 1) / 4294967296.0f;
    float value = sqrtf(-2.0f * logf(u)) * cospif(2.0f * v) * exp2f(float(int(i / k % 3) - 1) * spread);
    if (type == quant::kElementF32) {
      static_cast<float*>(x)[i] = value;
    } else if (type == quant::kElementF16) {
      std::uint16_t bits;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
      static_cast<std::uint16_t*>(x)[i] = bits;
    } else {
      std::uint16_t bits;
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
      value = __uint_as_float(std::uint32_t(bits) << 16);
      static_cast<std::uint16_t*>(x)[i] = bits;
    }
    if (exact != nullptr) exact[i] = value;
  }
}

}  // namespace

int processors() {
  cudaDeviceProp p{};
  CHECK(cudaGetDeviceProperties(&p, 0));
  return p.multiProcessorCount;
}

Matrix make_matrix(DType type, std::uint32_t n, std::uint32_t k, int spread, std::uint64_t seed) {
  if (!is_block(type)) return make_dense_matrix(type, n, k, spread, seed);
  const std::uint32_t row_blocks = k / block_elems(type);
  std::vector<std::uint8_t> blocks(std::size_t(n) * row_blocks * block_bytes(type));
  for (std::uint32_t row = 0; row < n; ++row) {
    quant::fill_random_blocks(type, blocks.data() + std::size_t(row) * row_blocks * block_bytes(type),
                              row_blocks, std::ldexp(1.0f, row % 4 == 3 ? -spread : 0), seed + row);
  }
  Matrix m;
  m.values.resize(std::size_t(n) * k);
  quant::dequantize_blocks(type, blocks.data(), std::uint64_t(n) * row_blocks, m.values.data());
  for (std::uint32_t row = 0; row < n; ++row) {
    float most = 0;
    for (std::uint32_t i = 0; i < k; ++i) most = std::max(most, std::fabs(m.values[std::size_t(row) * k + i]));
    // What scales and minimums can express is at most three times what random codes make of them.
    int exponent = 0;
    std::frexp(most, &exponent);
    m.exponents.push_back(exponent + 2);
  }
  m.records.resize(quant::record_grid(quant::record_format(type), n, k).bytes());
  quant::pack_records(type, blocks.data(), n, k, m.records.data());
  return m;
}

void fill_random_x(void* x, float* exact, long long count, int k, int spread, unsigned type, std::uint64_t seed,
                   cudaStream_t stream) {
  random_x<<<1024, 256, 0, stream>>>(x, exact, count, k, spread, type, seed);
}

}  // namespace tile_check
