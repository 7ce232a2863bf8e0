/// Stand-alone check and benchmark of the Hopper tile kernels: q4_0 and f16 weights, M = 32..4096.
///
/// Every (shape, M) runs in child processes: a kernel that hangs or traps costs that child only, the next one
/// goes on with the next configuration. Every configuration is verified before it is timed (y poisoned with
/// NaN, every element against a float64 reference that is itself compared with the CPU on a sample) and once
/// more after each timed chain, whose last call uses the verified matrix: bits must be the same.
///
/// Build: nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -Isrc -cudart static -o hop_tile
/// bench/hopper/tile.cu
///
///   hop_tile [--cublas PATH] [--only SUBSTRING] [--m M] [--n N] [--k K] [--quick] [--list] [--host]

#define MLXN_WATCHDOG

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "quant/hopper_records.h"
#include "tile_kernels.cuh"

namespace {

using namespace mlxn::hopper;
namespace tma = mlxn::sm90::tma;

struct CudaFailure {
  cudaError_t error;
  const char* where;
};
void check(cudaError_t error, const char* where) {
  if (error != cudaSuccess) throw CudaFailure{error, where};
}
#define CHECK(call) check(call, #call)

// ---- data
// ------------------------------------------------------------------------------------------------------

__host__ __device__ inline uint32_t mix(uint64_t v) {
  v += 0x9E3779B97F4A7C15ull;
  v = (v ^ (v >> 30)) * 0xBF58476D1CE4E5B9ull;
  v = (v ^ (v >> 27)) * 0x94D049BB133111EBull;
  return static_cast<uint32_t>((v ^ (v >> 31)) >> 16);
}

constexpr float kLargestScale = 0.022f;

/// Random q4_0 blocks as in a file: |d| uniform below kLargestScale, random sign.
__global__ void random_blocks(uint8_t* out, long long blocks, uint64_t seed) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < blocks; i += gridDim.x * 256ll) {
    uint8_t* block = out + i * kBlockBytes;
    const uint32_t r = mix(seed * 0x10001 + i * 5);
    const float magnitude = kLargestScale * (0.02f + 0.98f * (r >> 8) / 16777216.0f);
    const unsigned short d = __half_as_ushort(__float2half_rn(r & 1 ? -magnitude : magnitude));
    block[0] = d & 255;
    block[1] = d >> 8;
    for (int j = 0; j < 4; ++j) {
      const uint32_t q = mix(seed * 0x10001 + i * 5 + 1 + j);
      for (int b = 0; b < 4; ++b) block[2 + 4 * j + b] = q >> (8 * b);
    }
  }
}

__global__ void random_x(float* x, __half* x16, long long count, uint64_t seed) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const float u = (mix(seed + 2 * i) + 1.0f) / 4294967552.0f;
    const float v = mix(seed + 2 * i + 1) / 4294967296.0f;
    const float value = sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
    x[i] = value;
    x16[i] = __float2half_rn(value);
  }
}

__global__ void make_records(const uint8_t* blocks, uint8_t* records, int n, int k) {
  const int per_row = k / kRecordK;
  const int record = blockIdx.x;
  const int row0 = record / per_row * kRecordRows;
  const int k0 = record % per_row * kRecordK;
  uint8_t* out = records + static_cast<size_t>(record) * kRecordBytes;
  reinterpret_cast<uint32_t*>(out)[threadIdx.x] = record_word(blocks, k / 32, row0, k0, threadIdx.x);
  if (threadIdx.x < 64) {
    reinterpret_cast<uint16_t*>(out + kRecordScales)[threadIdx.x] =
        record_scale(blocks, k / 32, row0, k0, threadIdx.x);
  }
}

__global__ void make_f16(const uint8_t* blocks, __half* out, long long count) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const uint8_t* block = blocks + i / 32 * kBlockBytes;
    const float d = __half2float(__ushort_as_half(block[0] | block[1] << 8));
    out[i] = __float2half_rn(d * (int(block_quant(block, i % 32)) - 8));
  }
}

// ---- reference
// -------------------------------------------------------------------------------------------------

__host__ __device__ inline double weight_of(const uint8_t* blocks, const __half* f16, size_t index) {
  if (f16 != nullptr) return static_cast<double>(__half2float(f16[index]));
  const uint8_t* block = blocks + index / 32 * kBlockBytes;
  __half_raw raw;
  raw.x = static_cast<unsigned short>(block[0] | block[1] << 8);
  return static_cast<double>(__half2float(__half(raw))) * (int(block_quant(block, index % 32)) - 8);
}

/// y = x * W^T with float64 sums, 64 x 64 outputs a block, 4 x 4 a thread.
__global__ void __launch_bounds__(256)
    reference(const float* x, const uint8_t* blocks, const __half* f16, double* y, int m, int n, int k) {
  __shared__ double xs[16][65];
  __shared__ double ws[16][65];
  const int row0 = blockIdx.x * 64;
  const int token0 = blockIdx.y * 64;
  const int tx = threadIdx.x % 16;
  const int ty = threadIdx.x / 16;
  double sums[4][4] = {};
  for (int k0 = 0; k0 < k; k0 += 16) {
    for (int i = threadIdx.x; i < 1024; i += 256) {
      const int column = i % 16;
      const int row = i / 16;
      xs[column][row] =
          token0 + row < m ? static_cast<double>(x[size_t(token0 + row) * k + k0 + column]) : 0.0;
      ws[column][row] = row0 + row < n ? weight_of(blocks, f16, size_t(row0 + row) * k + k0 + column) : 0.0;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      double a[4];
      double b[4];
      for (int i = 0; i < 4; ++i) {
        a[i] = xs[j][ty + 16 * i];
        b[i] = ws[j][tx + 16 * i];
      }
      for (int p = 0; p < 4; ++p)
        for (int q = 0; q < 4; ++q) sums[p][q] += a[p] * b[q];
    }
    __syncthreads();
  }
  for (int p = 0; p < 4; ++p)
    for (int q = 0; q < 4; ++q) {
      const int token = token0 + ty + 16 * p;
      const int row = row0 + tx + 16 * q;
      if (token < m && row < n) y[size_t(token) * n + row] = sums[p][q];
    }
}

struct Difference {
  double error2;
  double reference2;
  unsigned long long max_abs_bits;  // of a non-negative double: ordered like the number
  unsigned long long not_finite;
  unsigned long long changed;  // bits unlike `before`
};

__global__ void compare(const float* y, const double* expected, const float* before, long long count,
                        Difference* out) {
  double error2 = 0;
  double reference2 = 0;
  double largest = 0;
  unsigned long long bad = 0;
  unsigned long long changed = 0;
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const double r = expected[i];
    const double e = static_cast<double>(y[i]) - r;
    if (!isfinite(y[i])) {
      ++bad;
    } else {
      error2 += e * e;
      largest = fmax(largest, fabs(e));
    }
    reference2 += r * r;
    if (before != nullptr && __float_as_uint(before[i]) != __float_as_uint(y[i])) ++changed;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    error2 += __shfl_down_sync(~0u, error2, offset);
    reference2 += __shfl_down_sync(~0u, reference2, offset);
    largest = fmax(largest, __shfl_down_sync(~0u, largest, offset));
    bad += __shfl_down_sync(~0u, bad, offset);
    changed += __shfl_down_sync(~0u, changed, offset);
  }
  if (threadIdx.x % 32 == 0) {
    atomicAdd(&out->error2, error2);
    atomicAdd(&out->reference2, reference2);
    atomicMax(&out->max_abs_bits, static_cast<unsigned long long>(__double_as_longlong(largest)));
    atomicAdd(&out->not_finite, bad);
    atomicAdd(&out->changed, changed);
  }
}

// ---- configurations
// --------------------------------------------------------------------------------------------

struct Shape {
  int n;
  int k;
  int m;
};

struct Kernel {
  const void* function;
  Weights weights;
  Pair pair;
  bool stream;
  bool split_k2;
  int rows;
  int tokens;
  int stages;
  int stage_k;
  int x_box_tokens;
  int threads;
  int shared_bytes;
  int row_threads;
  int sums;
  int blocks_per_sm;
};

template <class C>
Kernel describe() {
  return {reinterpret_cast<const void*>(&tile_matmul<C>),
          C::kWeights,
          C::kPair,
          C::kStream,
          C::kSplitK2,
          C::kRows,
          C::kTokens,
          C::kStages,
          C::kStageK,
          C::kXBoxTokens,
          C::kThreads,
          int(C::kSharedBytes),
          C::kRowThreads,
          C::kSums,
          C::kBlocksPerSm};
}

struct Variant {
  Kernel kernel;
  int split;  // kStream: blocks per tile; 0: as many blocks as fit; -1: the same after whole waves
  int group;
  int prefetch;

  std::string name() const {
    char split_text[24] = "";
    if (kernel.stream) std::snprintf(split_text, sizeof split_text, " split%d", split);
    if (kernel.stream && split <= 0) std::strcpy(split_text, split == 0 ? " stream" : " waves+stream");
    char text[160];
    std::snprintf(text, sizeof text, "%s %dx%d st%d%s%s%s%s grp%d pf%d",
                  kernel.weights == Weights::q4_0 ? "q4_0" : "f16", kernel.rows, kernel.tokens, kernel.stages,
                  kernel.pair == Pair::none ? "" : (kernel.pair == Pair::multicast ? " mcast" : " halves"),
                  kernel.split_k2 ? " k2" : "", kernel.blocks_per_sm == 2 ? " 2/sm" : "", split_text, group,
                  prefetch);
    return text;
  }
};

template <int kGroups, int kTokens, int kStages, bool kSplitK2 = false, int kPerSm = 1>
using Q4Stream = TileConfig<Weights::q4_0, kGroups, kTokens, kStages, Pair::none, true, kSplitK2, kPerSm>;
template <Weights kWeights, Pair kPair>
using Wide = TileConfig<kWeights, 2, 256, kWeights == Weights::q4_0 ? 3 : 4, kPair>;

std::vector<Variant> variants_of(int m) {
  std::vector<Variant> list;
  auto add = [&](const Kernel& kernel, std::initializer_list<int> splits, std::initializer_list<int> groups,
                 std::initializer_list<int> prefetches) {
    for (int split : splits)
      for (int group : groups)
        for (int prefetch : prefetches) list.push_back({kernel, split, group, prefetch});
  };
  constexpr Weights kQ4 = Weights::q4_0;
  constexpr Weights kF16 = Weights::f16;
  using Dense128 = TileConfig<kF16, 2, 128, 6, Pair::none, true>;
  using WideDenseStream = TileConfig<kF16, 2, 256, 4, Pair::none, true>;
  if (m > 1024) {
    add(describe<Wide<kQ4, Pair::none>>(), {1}, {1, 2, 4, 8}, {2});
    add(describe<Wide<kQ4, Pair::multicast>>(), {1}, {2, 8}, {2});
    add(describe<Q4Stream<2, 128, 5>>(), {-1}, {2, 4, 8}, {2});
    add(describe<Wide<kF16, Pair::none>>(), {1}, {1, 2, 4}, {2});
    add(describe<Wide<kF16, Pair::multicast>>(), {1}, {2}, {2});
    add(describe<Dense128>(), {-1}, {2, 4}, {2});
  } else if (m > 128) {
    add(describe<Wide<kQ4, Pair::halves_k>>(), {1}, {2}, {2});
    add(describe<Wide<kQ4, Pair::none>>(), {1}, {2}, {2});
    add(describe<Wide<kQ4, Pair::multicast>>(), {1}, {2}, {2});
    add(describe<Q4Stream<2, 128, 5>>(), {1, 0, -1}, {2, 4}, {2});
    add(describe<Wide<kF16, Pair::halves_k>>(), {1}, {2}, {2});
    add(describe<Wide<kF16, Pair::none>>(), {1}, {2}, {2});
    add(describe<WideDenseStream>(), {2, 0, -1}, {2}, {2});
    add(describe<Dense128>(), {1, 0, -1}, {4}, {2});
    add(describe<Wide<kF16, Pair::multicast>>(), {1}, {2}, {2});
  } else if (m > 64) {
    add(describe<Q4Stream<2, 128, 5>>(), {1, 2, 4, 0}, {1}, {2});
    add(describe<Q4Stream<3, 128, 4>>(), {1, 2, 3, 4, 0}, {1}, {2});
    add(describe<Q4Stream<1, 128, 5>>(), {1, 2, 0}, {1}, {2});
  } else if (m > 32) {
    add(describe<Q4Stream<2, 64, 8>>(), {1, 2, 4, 0}, {1}, {2, 4});
    add(describe<Q4Stream<4, 64, 6>>(), {2, 4, 8, 0}, {1}, {2, 4});
    add(describe<Q4Stream<3, 64, 7>>(), {1, 2, 3, 6, 0}, {1}, {2});
    add(describe<Q4Stream<2, 64, 8, true>>(), {1, 2, 4}, {1}, {2, 4});
    add(describe<Q4Stream<1, 64, 4, false, 2>>(), {1, 2, 4, 0}, {1}, {2});
  } else {
    add(describe<Q4Stream<2, 32, 10>>(), {1, 2, 4, 0}, {1}, {2, 4});
    add(describe<Q4Stream<4, 32, 7>>(), {2, 4, 8, 0}, {1}, {2, 4});
    add(describe<Q4Stream<3, 32, 8>>(), {1, 2, 3, 6, 0}, {1}, {2});
    add(describe<Q4Stream<2, 32, 10, true>>(), {1, 2, 4}, {1}, {2, 4});
    add(describe<Q4Stream<1, 32, 6, false, 2>>(), {1, 2, 4, 0}, {1}, {2});
  }
  return list;
}

// ---- cuBLAS, opened at run time
// ----------------------------------------------------------------------------------

class Cublas {
 public:
  bool open(const std::string& given) {
    std::vector<std::string> places;
    if (!given.empty()) places.push_back(given);
    places.insert(places.end(), {"libcublas.so.13", "/usr/local/cuda/lib64/libcublas.so.13", "libcublas.so"});
    for (const std::string& place : places) {
      if ((library_ = dlopen(place.c_str(), RTLD_NOW | RTLD_GLOBAL)) != nullptr) break;
    }
    if (library_ == nullptr) {
      std::printf("# no cuBLAS: %s\n", dlerror());
      return false;
    }
    auto create = reinterpret_cast<int (*)(void**)>(dlsym(library_, "cublasCreate_v2"));
    auto set_stream = reinterpret_cast<int (*)(void*, cudaStream_t)>(dlsym(library_, "cublasSetStream_v2"));
    auto set_workspace =
        reinterpret_cast<int (*)(void*, void*, size_t)>(dlsym(library_, "cublasSetWorkspace_v2"));
    gemm_ = reinterpret_cast<Gemm>(dlsym(library_, "cublasGemmEx"));
    if (!create || !set_stream || !set_workspace || !gemm_ || create(&handle_) != 0) {
      std::printf("# cuBLAS lacks a function or a handle\n");
      return false;
    }
    set_stream_ = set_stream;
    CHECK(cudaMalloc(&workspace_, kWorkspaceBytes));
    set_workspace_ = set_workspace;
    return true;
  }

  bool use(cudaStream_t stream) {
    return set_stream_(handle_, stream) == 0 && set_workspace_(handle_, workspace_, kWorkspaceBytes) == 0;
  }

  bool matmul(const __half* x, const __half* w, float* y, const Shape& s) {
    const float one = 1.0f;
    const float zero = 0.0f;
    constexpr int kF16 = 2;
    constexpr int kF32 = 0;
    constexpr int kCompute32 = 68;
    return gemm_(handle_, 1, 0, s.n, s.m, s.k, &one, w, kF16, s.k, x, kF16, s.k, &zero, y, kF32, s.n,
                 kCompute32, -1) == 0;
  }

 private:
  static constexpr size_t kWorkspaceBytes = size_t(64) << 20;
  using Gemm = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int,
                       int, const void*, void*, int, int, int, int);
  void* library_ = nullptr;
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  Gemm gemm_ = nullptr;
  int (*set_stream_)(void*, cudaStream_t) = nullptr;
  int (*set_workspace_)(void*, void*, size_t) = nullptr;
};

// ---- one case
// ----------------------------------------------------------------------------------------------------

struct Options {
  std::string cublas;
  std::string only;
  int m = 0;
  int n = 0;
  int k = 0;
  bool quick = false;
  bool list = false;
};

struct Timing {
  double plain_us = 0;
  double pdl_us = 0;
};

class Case {
 public:
  Case(const Shape& shape, const Options& options, bool timed)
      : shape_(shape), options_(options), timed_(timed) {
    CHECK(cudaGetDeviceProperties(&device_, 0));
    CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    const long long count = static_cast<long long>(shape.n) * shape.k;
    calls_ = shape.m >= 512 ? 8 : 32;
    matrices_ = !timed ? 1 : (shape.m >= 512 ? 8 : (count < (20 << 20) ? 48 : 16));
    replays_ = options.quick ? 3 : (shape.m >= 512 ? 7 : 15);
    with_f16_ = shape.m > 128;
    const size_t block_bytes = count / 32 * kBlockBytes;
    uint8_t* spare = nullptr;
    CHECK(cudaMalloc(&blocks_, block_bytes));
    CHECK(cudaMalloc(&spare, block_bytes));
    for (int i = 0; i < matrices_; ++i) {
      uint8_t* blocks = i == 0 ? blocks_ : spare;
      random_blocks<<<2048, 256, 0, stream_>>>(blocks, count / 32, 1000 + i);
      uint8_t* records = nullptr;
      CHECK(cudaMalloc(&records, block_bytes));
      make_records<<<shape.n / 16 * (shape.k / 128), kRecordWords, 0, stream_>>>(blocks, records, shape.n,
                                                                                 shape.k);
      records_.push_back(records);
      if (with_f16_) {
        __half* f16 = nullptr;
        CHECK(cudaMalloc(&f16, count * 2));
        make_f16<<<4096, 256, 0, stream_>>>(blocks, f16, count);
        f16_.push_back(f16);
      }
    }
    const long long x_count = static_cast<long long>(shape.m) * shape.k;
    y_count_ = static_cast<long long>(shape.m) * shape.n;
    CHECK(cudaMalloc(&x32_, x_count * 4));
    CHECK(cudaMalloc(&x_, x_count * 2));
    CHECK(cudaMalloc(&y_, y_count_ * 4));
    CHECK(cudaMalloc(&y_first_, y_count_ * 4));
    CHECK(cudaMalloc(&expected_, y_count_ * 8));
    CHECK(cudaMalloc(&workspace_, kWorkspaceBytes));
    CHECK(cudaMalloc(&counters_, kCounters * sizeof(unsigned)));
    CHECK(cudaMalloc(&difference_, sizeof(Difference)));
    random_x<<<2048, 256, 0, stream_>>>(x32_, x_, x_count, 77);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream_));
    CHECK(cudaFree(spare));
  }

  /// The float64 result on the GPU for one kind of weights, compared with the CPU on a sample.
  void make_reference(Weights weights) {
    if (have_reference_ && reference_of_ == weights) return;
    const __half* f16 = weights == Weights::f16 ? f16_[0] : nullptr;
    const dim3 grid((shape_.n + 63) / 64, (shape_.m + 63) / 64);
    reference<<<grid, 256, 0, stream_>>>(x32_, blocks_, f16, expected_, shape_.m, shape_.n, shape_.k);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream_));
    const size_t row_bytes = size_t(shape_.k) / 32 * kBlockBytes;
    std::vector<uint8_t> row(row_bytes);
    std::vector<__half> row16(shape_.k);
    std::vector<float> x(shape_.k);
    double worst = 0;
    for (int sample = 0; sample < 24; ++sample) {
      const int n = sample == 0 ? shape_.n - 1 : mix(900 + sample) % shape_.n;
      const int m = sample == 0 ? shape_.m - 1 : mix(500 + sample) % shape_.m;
      CHECK(cudaMemcpy(row.data(), blocks_ + n * row_bytes, row_bytes, cudaMemcpyDefault));
      if (f16 != nullptr)
        CHECK(cudaMemcpy(row16.data(), f16 + size_t(n) * shape_.k, shape_.k * 2, cudaMemcpyDefault));
      CHECK(cudaMemcpy(x.data(), x32_ + size_t(m) * shape_.k, shape_.k * 4, cudaMemcpyDefault));
      double sum = 0;
      for (int k = 0; k < shape_.k; ++k) sum += weight_of(row.data(), f16 ? row16.data() : nullptr, k) * x[k];
      double got = 0;
      CHECK(cudaMemcpy(&got, expected_ + size_t(m) * shape_.n + n, 8, cudaMemcpyDefault));
      worst = std::max(worst, std::fabs(got - sum));
    }
    if (!(worst < 1e-9)) {
      std::printf("# REFERENCE DIFFERS from the CPU by %.3g\n", worst);
      std::exit(4);
    }
    have_reference_ = true;
    reference_of_ = weights;
  }

  void run_cublas(Cublas& cublas, const char* label) {
    if (!cublas.use(stream_)) return;
    make_reference(Weights::f16);
    auto call = [&](int matrix, bool) {
      if (!cublas.matmul(x_, f16_[matrix], y_, shape_)) throw CudaFailure{cudaErrorUnknown, "cublasGemmEx"};
    };
    report(label, "f32 sums and output", Weights::f16, call, false);
    cublas_us_ = last_.plain_us;
  }

  void run(const Variant& v) {
    const Kernel& kernel = v.kernel;
    std::string reason;
    if (!plan(v, &reason)) {
      std::printf("%-52s %5d %5d %4d  skipped: %s\n", v.name().c_str(), shape_.n, shape_.k, shape_.m,
                  reason.c_str());
      return;
    }
    make_reference(kernel.weights);
    CHECK(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               kernel.shared_bytes));
    CHECK(cudaMemsetAsync(counters_, 0, kCounters * sizeof(unsigned), stream_));
    CHECK(cudaMemsetAsync(workspace_, 0xFF, size_t(workspace_needed_), stream_));
    auto call = [&](int matrix, bool pdl) {
      cudaLaunchConfig_t config{};
      config.gridDim = dim3(grid_);
      config.blockDim = dim3(kernel.threads);
      config.dynamicSmemBytes = kernel.shared_bytes;
      config.stream = stream_;
      cudaLaunchAttribute attributes[2];
      int count = 0;
      if (kernel.pair != Pair::none) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = 2;
        attributes[count].val.clusterDim.y = 1;
        attributes[count].val.clusterDim.z = 1;
        ++count;
      }
      if (pdl) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count].val.programmaticStreamSerializationAllowed = 1;
        ++count;
      }
      config.attrs = attributes;
      config.numAttrs = count;
      void* parameters[1] = {&args_[matrix]};
      CHECK(cudaLaunchKernelExC(&config, kernel.function, parameters));
    };
    report(kernel.weights == Weights::q4_0 ? "q4_0" : "f16", v.name().c_str(), kernel.weights, call, true);
  }

 private:
  static constexpr size_t kWorkspaceBytes = size_t(256) << 20;
  static constexpr int kCounters = 8192;

  /// Arguments and grid of a configuration on this shape; false with the reason where it does not fit.
  bool plan(const Variant& v, std::string* reason) {
    const Kernel& kernel = v.kernel;
    const int row_tiles = (shape_.n + kernel.rows - 1) / kernel.rows;
    const int token_tiles = (shape_.m + kernel.tokens - 1) / kernel.tokens;
    const bool multicast = kernel.pair == Pair::multicast;
    TileArgs args{};
    args.order = {multicast ? (row_tiles + 1) / 2 : row_tiles, token_tiles, v.group};
    const int tiles = args.order.count();
    const int steps = shape_.k / kernel.stage_k;
    int per_sm = 0;
    CHECK(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               kernel.shared_bytes));
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel.function, kernel.threads,
                                                        kernel.shared_bytes));
    const int resident = per_sm * device_.multiProcessorCount;
    if (resident == 0) return *reason = "does not fit on a multiprocessor", false;
    workspace_needed_ = 0;
    if (kernel.stream) {
      grid_ = v.split > 0 ? tiles * v.split : resident;
      args.whole_tiles = v.split < 0 ? tiles / resident * resident : 0;
      if (grid_ > resident) return *reason = "more blocks than fit at once", false;
      const mlxn::sm90::StepStream stream{steps, tiles - args.whole_tiles, grid_};
      for (int block = 0; block < grid_; ++block) {
        const int begin = stream.begin(block);
        const int end = stream.begin(block + 1);
        if (kernel.split_k2 && ((end - begin) % 2 != 0 || begin / steps != (end - 1) / steps)) {
          return *reason = "an odd number of steps or two tiles", false;
        }
        if (end == begin && args.whole_tiles == 0) return *reason = "a block without work", false;
      }
      workspace_needed_ = 2ll * grid_ * kernel.row_threads * kernel.sums * 4;
      if (workspace_needed_ > static_cast<long long>(kWorkspaceBytes) || tiles * 2 > kCounters) {
        return *reason = "workspace", false;
      }
    } else {
      const int items = tiles * (kernel.pair == Pair::none ? 1 : 2);
      grid_ = kernel.pair == Pair::halves_k ? items : std::min(items, resident);
      if (kernel.pair != Pair::none) grid_ = grid_ / 2 * 2;
      if (kernel.pair == Pair::halves_k && steps < 2) return *reason = "fewer steps than parts", false;
    }

    args.y = y_;
    args.workspace = static_cast<float4*>(workspace_);
    args.counters = counters_;
    args.m = shape_.m;
    args.n = shape_.n;
    args.k = shape_.k;
    args.prefetch = v.prefetch;
    args.row_scale[0] = args.row_scale[1] = 1.0f;
    if (kernel.weights == Weights::q4_0) {
      // The largest power p with |d| * 2^p in the f16 range; f16 holds 2^15, so d is multiplied twice.
      int power = 0;
      while (power < 25 && std::ldexp(kLargestScale * 1.001, power + 1) < 65504.0) ++power;
      args.d_scale[0] = __float2half2_rn(std::ldexp(1.0f, power / 2));
      args.d_scale[1] = __float2half2_rn(std::ldexp(1.0f, power - power / 2));
      args.row_scale[0] = std::ldexp(1.0f, 24 - power);
      args.row_scale[1] = std::ldexp(1.0f, 20 - power);
    }
    const tma::Map2d x_map{CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                           2,
                           x_,
                           uint64_t(shape_.k),
                           uint64_t(shape_.m),
                           uint64_t(shape_.k) * 2,
                           64,
                           uint32_t(kernel.x_box_tokens),
                           CU_TENSOR_MAP_SWIZZLE_128B};
    CHECK(tma::make_map(&args.x, x_map));
    args_.assign(matrices_, args);
    for (int i = 0; i < matrices_; ++i) {
      tma::Map2d w_map{};
      if (kernel.weights == Weights::q4_0) {
        const uint64_t row_bytes = uint64_t(shape_.k) / kRecordK * kRecordBytes;
        w_map = {CU_TENSOR_MAP_DATA_TYPE_UINT64, 8,         records_[i],      row_bytes / 8,
                 uint64_t(shape_.n) / 16,        row_bytes, kRecordBytes / 8, uint32_t(kernel.rows / 16),
                 CU_TENSOR_MAP_SWIZZLE_NONE};
      } else {
        w_map = x_map;
        w_map.base = f16_[i];
        w_map.rows = shape_.n;
        w_map.box_rows = kernel.rows;
      }
      CHECK(tma::make_map(&args_[i].w, w_map));
    }
    return true;
  }

  Difference difference(const float* before) {
    CHECK(cudaMemsetAsync(difference_, 0, sizeof(Difference), stream_));
    compare<<<1024, 256, 0, stream_>>>(y_, expected_, before, y_count_, difference_);
    Difference result{};
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(&result, difference_, sizeof result, cudaMemcpyDefault, stream_));
    CHECK(cudaStreamSynchronize(stream_));
    return result;
  }

  template <class Call>
  double time_chain(const Call& call, bool pdl, std::string* trouble) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    for (int i = calls_ - 1; i >= 0; --i) call(i % matrices_, pdl);  // the last call uses matrix 0
    CHECK(cudaStreamEndCapture(stream_, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = 0; i < replays_ + 2; ++i) {
      CHECK(cudaEventRecord(begin, stream_));
      CHECK(cudaGraphLaunch(exec, stream_));
      CHECK(cudaEventRecord(end, stream_));
      CHECK(cudaStreamSynchronize(stream_));
      float ms = 0;
      CHECK(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 2) times.push_back(ms);
    }
    CHECK(cudaMemsetAsync(y_, 0xFF, y_count_ * 4, stream_));
    CHECK(cudaGraphLaunch(exec, stream_));
    const Difference d = difference(y_first_);
    if (d.not_finite != 0 || d.changed != 0) *trouble += pdl ? " PDL-CHAIN-DIFFERS" : " CHAIN-DIFFERS";
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2] * 1000.0 / calls_;
  }

  template <class Call>
  void report(const char* label, const char* config, Weights weights, const Call& call, bool ours) {
    CHECK(cudaMemsetAsync(y_, 0xFF, y_count_ * 4, stream_));
    call(0, false);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream_));
    const Difference d = difference(nullptr);
    const double nmse = d.error2 / d.reference2;
    double max_abs = 0;
    static_assert(sizeof max_abs == sizeof d.max_abs_bits);
    std::memcpy(&max_abs, &d.max_abs_bits, sizeof max_abs);
    const bool passed = d.not_finite == 0 && nmse < 1e-7;
    std::string trouble = passed ? "" : " WRONG";
    last_ = {};
    if (passed && timed_) {
      CHECK(cudaMemcpyAsync(y_first_, y_, y_count_ * 4, cudaMemcpyDefault, stream_));
      last_.plain_us = time_chain(call, false, &trouble);
      if (ours) last_.pdl_us = time_chain(call, true, &trouble);
    }
    const double flop = 2.0 * shape_.m * shape_.n * shape_.k;
    const double best = last_.pdl_us > 0 ? std::min(last_.plain_us, last_.pdl_us) : last_.plain_us;
    std::printf("%-52s %5d %5d %4d %8.2f %8.2f %6.0f %6.3f  %8.2e %8.2e %s%s\n", ours ? config : label,
                shape_.n, shape_.k, shape_.m, last_.plain_us, last_.pdl_us,
                best > 0 ? flop / best * 1e-6 : 0.0, cublas_us_ > 0 && best > 0 ? cublas_us_ / best : 0.0,
                nmse, max_abs, passed ? "ok" : "FAILED", trouble.c_str());
    if (!passed) {
      std::printf("#   not finite %llu of %lld, error^2 %.3g, reference^2 %.3g\n", d.not_finite, y_count_,
                  d.error2, d.reference2);
      locate_error();
    }
    (void)weights;
  }

  /// Where the first wrong elements lie.
  void locate_error() {
    std::vector<float> y(y_count_);
    std::vector<double> r(y_count_);
    CHECK(cudaMemcpy(y.data(), y_, y_count_ * 4, cudaMemcpyDefault));
    CHECK(cudaMemcpy(r.data(), expected_, y_count_ * 8, cudaMemcpyDefault));
    int shown = 0;
    long long wrong = 0;
    for (long long i = 0; i < y_count_; ++i) {
      if (std::fabs(y[i] - r[i]) < 0.1) continue;
      ++wrong;
      if (shown < 6) {
        std::printf("#   token %lld row %lld: got %.5g wanted %.5g\n", i / shape_.n, i % shape_.n,
                    double(y[i]), r[i]);
        ++shown;
      }
    }
    std::printf("#   %lld elements off by 0.1 or more\n", wrong);
  }

  Shape shape_;
  Options options_;
  bool timed_;
  cudaDeviceProp device_{};
  cudaStream_t stream_ = nullptr;
  int calls_ = 0;
  int matrices_ = 0;
  int replays_ = 0;
  bool with_f16_ = false;
  long long y_count_ = 0;
  uint8_t* blocks_ = nullptr;
  std::vector<uint8_t*> records_;
  std::vector<__half*> f16_;
  float* x32_ = nullptr;
  __half* x_ = nullptr;
  float* y_ = nullptr;
  float* y_first_ = nullptr;
  double* expected_ = nullptr;
  void* workspace_ = nullptr;
  unsigned* counters_ = nullptr;
  Difference* difference_ = nullptr;
  bool have_reference_ = false;
  Weights reference_of_ = Weights::q4_0;
  std::vector<TileArgs> args_;
  int grid_ = 0;
  long long workspace_needed_ = 0;
  Timing last_;
  double cublas_us_ = 0;
};

// ---- processes
// ---------------------------------------------------------------------------------------------------

struct Task {
  Shape shape;
  bool timed;
};

std::vector<Variant> selected(const Task& task, const Options& options) {
  std::vector<Variant> list = variants_of(task.shape.m);
  std::vector<Variant> result;
  for (const Variant& v : list) {
    if (!options.only.empty() && v.name().find(options.only) == std::string::npos) continue;
    if (!task.timed && v.prefetch != 2) continue;
    result.push_back(v);
  }
  return result;
}

/// Runs variants first.. of a task; tells the parent through the pipe where it is. The exit code is 0 when
/// all ran.
int child(const Task& task, const Options& options, size_t first, int pipe) {
  auto tell = [&](int index) {
    std::fflush(stdout);
    const int32_t word = index;
    if (write(pipe, &word, sizeof word) != sizeof word) std::exit(5);
  };
  const std::vector<Variant> variants = selected(task, options);
  int at = -1;
  try {
    Case test(task.shape, options, task.timed);
    Cublas cublas;
    const bool peer = task.timed && task.shape.m > 128 && cublas.open(options.cublas);
    if (peer) test.run_cublas(cublas, "cuBLAS f16");
    for (size_t i = first; i < variants.size(); ++i) {
      at = static_cast<int>(i);
      tell(at);
      test.run(variants[i]);
      if (peer && i % 4 == 3)
        test.run_cublas(cublas, "cuBLAS f16, again");  // the chip slows down as it gets warm
    }
    at = static_cast<int>(variants.size());
    tell(at);
    if (peer) test.run_cublas(cublas, "cuBLAS f16, again");
  } catch (const CudaFailure& failure) {
    std::printf("%-52s %5d %5d %4d  FAILED: %s in %s\n",
                at >= 0 && at < int(variants.size()) ? variants[at].name().c_str() : "set-up", task.shape.n,
                task.shape.k, task.shape.m, cudaGetErrorString(failure.error), failure.where);
    std::fflush(stdout);
    return 3;
  }
  std::fflush(stdout);
  return 0;
}

void run_task(const Task& task, const Options& options) {
  const size_t count = selected(task, options).size();
  size_t next = 0;
  int failures = 0;
  while (next < count && failures < 12) {
    int ends[2];
    if (pipe(ends) != 0) return;
    std::fflush(stdout);
    const pid_t pid = fork();
    if (pid < 0) return;
    if (pid == 0) {
      close(ends[0]);
      const int code = child(task, options, next, ends[1]);
      std::fflush(stdout);
      _exit(code);
    }
    close(ends[1]);
    int at = static_cast<int>(next);
    bool started = false;
    bool hung = false;
    for (;;) {
      pollfd wait{ends[0], POLLIN, 0};
      const int ready = poll(&wait, 1, 25000);
      if (ready == 0) {
        hung = true;
        kill(pid, SIGKILL);
        break;
      }
      int32_t word = 0;
      if (read(ends[0], &word, sizeof word) != sizeof word) break;
      at = word;
      started = true;
    }
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    if (hung) {
      std::printf("HUNG %d %d %d: %s\n", task.shape.n, task.shape.k, task.shape.m,
                  started && at < int(count) ? selected(task, options)[at].name().c_str() : "set-up or peer");
    }
    if (!hung && WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    if (!started) return;  // the set-up failed: no use to repeat it
    ++failures;
    next = static_cast<size_t>(at) + 1;
  }
}

// ---- what can be checked without a GPU
// ---------------------------------------------------------------------------

/// Unpacks records as the kernel's lanes do and puts the fragments where the instruction reads them.
int host_checks() {
  int failures = 0;
  const int rows = 16;
  const int k = 256;
  std::vector<uint8_t> blocks(size_t(rows) * k / 32 * kBlockBytes);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = mix(i) & 255;
  for (size_t i = 0; i < blocks.size(); i += kBlockBytes) {
    blocks[i + 1] = (blocks[i + 1] & 0x83) | 0x10;  // a scale near 2^-11
  }
  for (int record = 0; record < k / kRecordK; ++record) {
    uint32_t words[kRecordWords];
    uint16_t scales[64];
    for (int i = 0; i < kRecordWords; ++i)
      words[i] = record_word(blocks.data(), k / 32, 0, record * kRecordK, i);
    for (int i = 0; i < 64; ++i) scales[i] = record_scale(blocks.data(), k / 32, 0, record * kRecordK, i);
    std::vector<uint8_t> library(size_t(k) / kRecordK * kRecordBytes);
    mlxn::quant::q4_0_to_records(blocks.data(), rows, k, library.data());
    const uint8_t* same = library.data() + size_t(record) * kRecordBytes;
    failures += std::memcmp(same, words, sizeof words) != 0;
    failures += std::memcmp(same + kRecordScales, scales, sizeof scales) != 0;
    int seen = 0;
    for (int lane = 0; lane < 32; ++lane)
      for (int plane = 0; plane < 2; ++plane)
        for (int step = 0; step < 4; ++step) {
          const uint32_t w = words[plane * 128 + lane * 4 + step];
          const uint32_t fragment[4] = {w & 0x000F000Fu, w & 0x00F000F0u, (w >> 8) & 0x000F000Fu,
                                        (w >> 8) & 0x00F000F0u};
          for (int reg = 0; reg < 4; ++reg)
            for (int half = 0; half < 2; ++half) {
              // Fragment of A: register reg, half: row g + 8 * (reg % 2), k 2t + half + 8 * (reg / 2).
              const int row = lane / 4 + 8 * (reg % 2);
              const int column = plane * 64 + step * 16 + 2 * (lane % 4) + half + 8 * (reg / 2);
              const uint32_t field = (fragment[reg] >> (16 * half)) & 0xFFFF;
              const uint32_t quant = reg % 2 ? field >> 4 : field;
              const int block = plane * 2 + step / 2;
              const uint16_t scale = scales[(lane / 4) * 8 + 4 * (reg % 2) + block];
              __half_raw raw;
              raw.x = scale;
              const double got = double(__half2float(__half(raw))) * (int(quant) - 8);
              const double want =
                  weight_of(blocks.data(), nullptr, size_t(row) * k + record * kRecordK + column);
              if (got != want) ++failures;
              ++seen;
            }
        }
    if (seen != 16 * 128) ++failures;
  }
  // Each tile once, whatever the group.
  for (int group = 1; group < 9; ++group) {
    const mlxn::sm90::TileOrder order{7, 5, group};
    std::vector<int> times(35, 0);
    for (int i = 0; i < order.count(); ++i) {
      const auto place = order.at(i);
      if (place.row_tile < 0 || place.row_tile >= 7 || place.token_tile < 0 || place.token_tile >= 5) {
        ++failures;
        continue;
      }
      ++times[place.row_tile * 5 + place.token_tile];
    }
    for (int t : times) failures += t != 1;
  }
  for (int steps = 0; steps < 40; ++steps)
    for (int parts = 1; parts < 9; ++parts) {
      int at = 0;
      for (int part = 0; part < parts; ++part) {
        const auto range = mlxn::sm90::split_steps(steps, part, parts);
        failures += range.begin != at || range.end < range.begin;
        at = range.end;
      }
      failures += at != steps;
    }
  for (int steps : {1, 4, 7, 32, 112})
    for (int tiles : {0, 1, 5, 56, 92})
      for (int count : {1, 3, 112, 132}) {
        const mlxn::sm90::StepStream stream{steps, tiles, count};
        failures += stream.begin(0) != 0 || stream.begin(count) != steps * tiles;
        for (int block = 0; block < count; ++block) {
          for (int unit = stream.begin(block); unit < stream.begin(block + 1); ++unit) {
            failures += stream.owner(unit) != block;
          }
        }
      }
  std::printf("host checks: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (arg == "--cublas") {
      options.cublas = value();
    } else if (arg == "--only") {
      options.only = value();
    } else if (arg == "--m") {
      options.m = std::atoi(value().c_str());
    } else if (arg == "--n") {
      options.n = std::atoi(value().c_str());
    } else if (arg == "--k") {
      options.k = std::atoi(value().c_str());
    } else if (arg == "--quick") {
      options.quick = true;
    } else if (arg == "--list") {
      options.list = true;
    } else if (arg == "--host") {
      return host_checks();
    } else {
      std::fprintf(stderr, "unknown option %s\n", arg.c_str());
      return 2;
    }
  }
  if (host_checks() != 0) return 1;
  std::vector<Task> tasks;
  // Small and ragged first, checked only: a wrong kernel shows here at once.
  for (const Shape& s : {Shape{272, 512, 20}, Shape{272, 512, 50}, Shape{272, 512, 100}, Shape{400, 896, 513},
                         Shape{400, 896, 1100}}) {
    tasks.push_back({s, false});
  }
  for (int m : {64, 4096, 512, 32, 128})
    for (const Shape& s : {Shape{4096, 14336, m}, Shape{14336, 4096, m}, Shape{4096, 4096, m}}) {
      tasks.push_back({s, true});
    }
  std::printf("%-52s %5s %5s %4s %8s %8s %6s %6s  %8s %8s\n", "kernel and configuration", "N", "K", "M",
              "plain us", "PDL us", "TFLOPs", "cublas", "NMSE", "max abs");
  for (const Task& task : tasks) {
    if ((options.m && task.shape.m != options.m) || (options.n && task.shape.n != options.n) ||
        (options.k && task.shape.k != options.k)) {
      continue;
    }
    if (options.list) {
      for (const Variant& v : selected(task, options)) {
        std::printf("%-52s %5d %5d %4d%s\n", v.name().c_str(), task.shape.n, task.shape.k, task.shape.m,
                    task.timed ? "" : "  check only");
      }
      continue;
    }
    run_task(task, options);
  }
  return 0;
}
