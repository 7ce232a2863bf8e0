// What the stand-alone Hopper benches share: checked CUDA calls, random q4_0 matrices and activations, the
// float64 reference and its own check, comparison of outputs, graphs of launches with plain and programmatic
// edges, and the read ceiling.
#pragma once

#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "quant/hopper_records.h"

namespace bench {

#define BENCH_CUDA(call)                                                                           \
  do {                                                                                             \
    const cudaError_t bench_status = (call);                                                       \
    if (bench_status != cudaSuccess) {                                                             \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(bench_status)); \
      std::fflush(stdout);                                                                         \
      _exit(2);                                                                                    \
    }                                                                                              \
  } while (0)

/// Prints and ends the process without waiting for the device.
[[noreturn]] inline void fail(const std::string& text) {
  std::printf("FAILED: %s\n", text.c_str());
  std::fflush(stdout);
  _exit(3);
}

template <class T>
struct DeviceArray {
  T* data = nullptr;
  std::size_t size = 0;
  explicit DeviceArray(std::size_t n) : size(n) { BENCH_CUDA(cudaMalloc(&data, n * sizeof(T))); }
  ~DeviceArray() { cudaFree(data); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  void upload(const T* from) { BENCH_CUDA(cudaMemcpy(data, from, size * sizeof(T), cudaMemcpyHostToDevice)); }
};

/// splitmix64, of a position: the same values in any order and on any device.
__host__ __device__ inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t position) {
  std::uint64_t z = (seed * 0x9e3779b97f4a7c15ull) ^ (position + 1) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

/// An f16 scale of magnitude 0.0078 to 0.0312 with a random sign.
__host__ __device__ inline std::uint16_t random_scale(std::uint64_t bits) {
  return static_cast<std::uint16_t>((bits & 0x8000) | (0x2000 + (bits & 0x7ff)));
}

inline float normal(std::uint64_t seed, std::uint64_t position) {
  const std::uint64_t bits = random_bits(seed, position);
  const double u = (static_cast<double>(bits >> 40) + 0.5) / 16777216,
               v = static_cast<double>(bits & 0xffffff) / 16777216;
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
}

inline float f16_value(std::uint16_t h) {
  const int e = h >> 10 & 31;
  const double m = h & 1023, v = e == 0 ? std::ldexp(m, -24) : std::ldexp(m + 1024, e - 25);
  return static_cast<float>(h & 0x8000 ? -v : v);
}

/// Nearest f16, ties to even, of a value whose nearest f16 is finite.
inline std::uint16_t f16_bits(float value) {
  const double a = std::fabs(static_cast<double>(value));
  int e = a == 0 ? -15 : std::ilogb(a);
  e = std::max(e, -14);
  const int units = static_cast<int>(std::nearbyint(std::ldexp(a, 10 - e)));  // 0..2048
  const int bits = units < 1024 ? units : (e + 15) * 1024 + (units - 1024);  // a carry runs into the exponent
  return static_cast<std::uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0));
}

/// The file's bytes of a random matrix [n, k].
inline std::vector<std::uint8_t> random_q4_0(std::uint64_t seed, std::uint64_t n, std::uint64_t k) {
  std::vector<std::uint8_t> blocks(n * (k / 32) * 18);
  for (std::uint64_t b = 0; b < blocks.size() / 18; ++b) {
    const std::uint64_t bits[3] = {random_bits(seed, 3 * b), random_bits(seed, 3 * b + 1),
                                   random_bits(seed, 3 * b + 2)};
    const std::uint16_t d = random_scale(bits[0]);
    std::memcpy(&blocks[b * 18], &d, 2);
    std::memcpy(&blocks[b * 18 + 2], bits + 1, 16);
  }
  return blocks;
}

/// Fills records with random quants and valid scales: matrices whose values nobody checks, for timing.
__global__ void random_records_kernel(std::uint8_t* out, std::uint64_t n_records, std::uint64_t seed) {
  for (std::uint64_t i = blockIdx.x * 144ull + threadIdx.x; i < n_records * 144; i += gridDim.x * 144ull) {
    std::uint64_t bits = random_bits(seed, i);
    if (i % 144 >= 128) {
      std::uint64_t scales = 0;
      for (int j = 0; j < 4; ++j)
        scales |= static_cast<std::uint64_t>(random_scale(bits >> (16 * j))) << (16 * j);
      bits = scales;
    }
    reinterpret_cast<std::uint64_t*>(out)[i] = bits;
  }
}
inline void fill_random_records(std::uint8_t* out, std::uint64_t n_records, std::uint64_t seed) {
  random_records_kernel<<<4096, 144>>>(out, n_records, seed);
  BENCH_CUDA(cudaGetLastError());
  BENCH_CUDA(cudaDeviceSynchronize());
}

/// y[m, n] in float64 of the file's bytes and x in f32. One warp per row of w.
__global__ void reference_kernel(const std::uint8_t* blocks, const float* x, double* y, int m, int n, int k) {
  const int row = blockIdx.x, lane = threadIdx.x;
  for (int token = 0; token < m; ++token) {
    double sum = 0;
    for (int b = lane; b < k / 32; b += 32) {
      const std::uint8_t* block = blocks + (static_cast<std::uint64_t>(row) * (k / 32) + b) * 18;
      const std::uint32_t h = block[0] | block[1] << 8;
      const double e = h >> 10 & 31, mant = h & 1023;
      const double magnitude = e == 0 ? mant * exp2(-24.0) : (mant + 1024) * exp2(e - 25);
      const double d = h & 0x8000 ? -magnitude : magnitude;
      for (int i = 0; i < 32; ++i) {
        const int q = block[2 + i % 16] >> (i / 16 * 4) & 15;
        sum += d * (q - 8) * static_cast<double>(x[static_cast<std::uint64_t>(token) * k + b * 32 + i]);
      }
    }
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (lane == 0) y[static_cast<std::uint64_t>(token) * n + row] = sum;
  }
}

/// One random matrix with activations and its reference, checked on the CPU on a sample.
struct Problem {
  int m, n, k;
  std::vector<std::uint8_t> blocks;
  DeviceArray<std::uint8_t> device_blocks, records;
  DeviceArray<float> x32;          // normal
  DeviceArray<std::uint16_t> x16;  // x32 rounded to f16
  DeviceArray<double> y32, y16;    // references for either x

  Problem(int m_, int n_, int k_, std::uint64_t seed)
      : m(m_),
        n(n_),
        k(k_),
        blocks(random_q4_0(seed, n_, k_)),
        device_blocks(blocks.size()),
        records(mlxn::quant::RecordShape(n_, k_).records() * mlxn::quant::kQ4_0RecordBytes),
        x32(static_cast<std::size_t>(m_) * k_),
        x16(x32.size),
        y32(static_cast<std::size_t>(m_) * n_),
        y16(y32.size) {
    std::vector<float> x(x32.size), rounded(x32.size);
    std::vector<std::uint16_t> halves(x32.size);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = normal(seed + 1, i);
      halves[i] = f16_bits(x[i]);
      rounded[i] = f16_value(halves[i]);
    }
    std::vector<std::uint8_t> packed(records.size);
    mlxn::quant::q4_0_to_records(blocks.data(), n, k, packed.data());
    device_blocks.upload(blocks.data());
    records.upload(packed.data());
    x16.upload(halves.data());
    x32.upload(rounded.data());
    reference_kernel<<<n, 32>>>(device_blocks.data, x32.data, y16.data, m, n, k);
    BENCH_CUDA(cudaDeviceSynchronize());
    x32.upload(x.data());
    reference_kernel<<<n, 32>>>(device_blocks.data, x32.data, y32.data, m, n, k);
    BENCH_CUDA(cudaDeviceSynchronize());
    std::vector<double> y(y32.size);
    BENCH_CUDA(cudaMemcpy(y.data(), y32.data, y.size() * 8, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 64; ++i) {
      const int token = static_cast<int>(random_bits(seed + 2, i) % m),
                row = static_cast<int>(random_bits(seed + 3, i) % n);
      double sum = 0, magnitude = 0;
      for (int j = 0; j < k; ++j) {
        const std::uint8_t* block = &blocks[(static_cast<std::uint64_t>(row) * (k / 32) + j / 32) * 18];
        std::uint16_t d;
        std::memcpy(&d, block, 2);
        const int q = block[2 + j % 16] >> (j % 32 / 16 * 4) & 15;
        const double product =
            static_cast<double>(f16_value(d)) * (q - 8) * x[static_cast<std::size_t>(token) * k + j];
        sum += product;
        magnitude += std::fabs(product);
      }
      if (!(std::fabs(sum - y[static_cast<std::size_t>(token) * n + row]) <= 1e-13 * magnitude))
        fail("the reference is wrong");
    }
  }
};

struct Difference {
  double error2 = 0, reference2 = 0;
  unsigned long long max_abs_bits = 0, n_not_finite = 0;
  [[nodiscard]] double nmse() const { return error2 / reference2; }
  [[nodiscard]] double max_abs() const {
    double v;
    std::memcpy(&v, &max_abs_bits, 8);
    return v;
  }
  [[nodiscard]] bool is_within(double limit) const { return n_not_finite == 0 && nmse() <= limit; }
};

__global__ void difference_kernel(const float* y, const double* reference, std::uint64_t size,
                                  Difference* out) {
  double error2 = 0, reference2 = 0, largest = 0;
  unsigned long long bad = 0;
  for (std::uint64_t i = blockIdx.x * 256ull + threadIdx.x; i < size; i += gridDim.x * 256ull) {
    const double v = y[i], r = reference[i];
    if (!isfinite(v)) {
      ++bad;
      continue;
    }
    error2 += (v - r) * (v - r);
    reference2 += r * r;
    largest = fmax(largest, fabs(v - r));
  }
  atomicAdd(&out->error2, error2);
  atomicAdd(&out->reference2, reference2);
  atomicMax(&out->max_abs_bits, static_cast<unsigned long long>(__double_as_longlong(largest)));
  atomicAdd(&out->n_not_finite, bad);
}

/// Compares every element.
inline Difference compare(const float* y, const double* reference, std::uint64_t size) {
  DeviceArray<Difference> out(1);
  const Difference zero;
  out.upload(&zero);
  difference_kernel<<<264, 256>>>(y, reference, size, out.data);
  Difference result;
  BENCH_CUDA(cudaMemcpy(&result, out.data, sizeof result, cudaMemcpyDeviceToHost));
  return result;
}

/// Fills with NaN.
inline void poison(float* y, std::size_t size) { BENCH_CUDA(cudaMemset(y, 0xff, size * sizeof(float))); }

/// Waits for the stream; after `seconds` or an error says which variant it was and ends the process.
inline void wait_or_fail(cudaStream_t stream, const std::string& variant, double seconds = 5) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const cudaError_t status = cudaStreamQuery(stream);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) fail(variant + ": " + cudaGetErrorString(status));
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > seconds)
      fail(variant + ": hangs");
  }
}

/// Launches with or without programmatic dependence on the kernel before.
template <class Args>
void launch(void (*kernel)(Args), unsigned blocks, unsigned threads, unsigned shared_bytes,
            cudaStream_t stream, bool is_programmatic, const Args& args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = is_programmatic ? 1 : 0;
  BENCH_CUDA(cudaLaunchKernelEx(&config, kernel, args));
}

/// Microseconds per call, median of `replays` replays of a graph of `calls` calls of record(i).
inline double time_graph(cudaStream_t stream, int calls, int replays, const std::function<void(int)>& record,
                         const std::string& variant) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  BENCH_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls; ++i) record(i);
  BENCH_CUDA(cudaStreamEndCapture(stream, &graph));
  BENCH_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin, end;
  BENCH_CUDA(cudaEventCreate(&begin));
  BENCH_CUDA(cudaEventCreate(&end));
  for (int i = 0; i < 2; ++i) BENCH_CUDA(cudaGraphLaunch(executable, stream));
  wait_or_fail(stream, variant);
  std::vector<float> times;
  for (int i = 0; i < replays; ++i) {
    BENCH_CUDA(cudaEventRecord(begin, stream));
    BENCH_CUDA(cudaGraphLaunch(executable, stream));
    BENCH_CUDA(cudaEventRecord(end, stream));
    wait_or_fail(stream, variant);
    float ms;
    BENCH_CUDA(cudaEventElapsedTime(&ms, begin, end));
    times.push_back(ms);
  }
  BENCH_CUDA(cudaEventDestroy(begin));
  BENCH_CUDA(cudaEventDestroy(end));
  BENCH_CUDA(cudaGraphExecDestroy(executable));
  BENCH_CUDA(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * 1000.0 / calls;
}

__global__ void __launch_bounds__(512)
    stream_read_kernel(const uint4* data, std::uint64_t n, std::uint32_t* sink) {
  std::uint32_t sum = 0;
  const std::uint64_t stride = gridDim.x * 512ull;
  std::uint64_t i = blockIdx.x * 512ull + threadIdx.x;
  for (; i + 7 * stride < n; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < n; i += stride) sum ^= data[i].x;
  if (sum == 0x12345678) *sink = sum;
}

/// GB/s of reading 2 GiB of random data, median of 9.
inline double read_ceiling(cudaStream_t stream) {
  constexpr std::uint64_t kBytes = 2ull << 30;
  DeviceArray<std::uint8_t> data(kBytes);
  DeviceArray<std::uint32_t> sink(1);
  fill_random_records(data.data, kBytes / 1152, 99);
  int sms = 0;
  BENCH_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  double best = 0;
  for (int per_sm : {1, 2, 4}) {
    const double us = time_graph(
        stream, 4, 9,
        [&](int) {
          stream_read_kernel<<<sms * per_sm, 512, 0, stream>>>(reinterpret_cast<uint4*>(data.data),
                                                               kBytes / 16, sink.data);
        },
        "read ceiling");
    best = std::max(best, kBytes / us / 1000);
  }
  return best;
}

}  // namespace bench
