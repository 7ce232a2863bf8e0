#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mlxn/dtype.h"

// Weights and rows of x, on the host and the device.
namespace tile_check {

using namespace mlxn;

struct Failure {
  cudaError_t error;
  const char* where;
};
inline void check(cudaError_t error, const char* where) {
  if (error != cudaSuccess) throw Failure{error, where};
}
#define CHECK(call) check(call, #call)

template <class T>
T* device(std::size_t count) {
  T* p = nullptr;
  CHECK(cudaMalloc(&p, std::max<std::size_t>(count * sizeof(T), 256)));
  return p;
}
template <class T>
T* upload(const std::vector<T>& v) {
  T* p = device<T>(v.size());
  CHECK(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyDefault));
  return p;
}

/// Multiprocessors of the device.
int processors();

/// A hash, for numbers without a state.
__host__ __device__ inline std::uint32_t mix(std::uint64_t v) {
  v += 0x9E3779B97F4A7C15ull;
  v = (v ^ (v >> 30)) * 0xBF58476D1CE4E5B9ull;
  v = (v ^ (v >> 27)) * 0x94D049BB133111EBull;
  return static_cast<std::uint32_t>((v ^ (v >> 31)) >> 16);
}

/// Weights as the kernels read them and as numbers.
struct Matrix {
  std::vector<std::uint8_t> records;
  std::vector<float> values;
  std::vector<std::int32_t> exponents;  // of rows
};
/// Random blocks, or numbers of many sizes; every fourth row's scales are 2^-`spread` of the others'.
Matrix make_matrix(DType type, std::uint32_t n, std::uint32_t k, int spread, std::uint64_t seed);

/// Normal numbers, in row r times 2^(r % 3 * spread - spread); type as in quant::kElement..., `exact` what it
/// holds.
void fill_random_x(void* x, float* exact, long long count, int k, int spread, unsigned type, std::uint64_t seed,
                   cudaStream_t stream = nullptr);

}  // namespace tile_check
