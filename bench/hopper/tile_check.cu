/// Stand-alone check and benchmark of the library's tile kernels for Hopper
/// (src/ops/matmul/cuda_hopper_*.cu).
///
/// Every kernel of every type: y, poisoned with NaN, against float64 sums of the exact weights and the
/// unrounded x, with tails in m, n and k, whole and in parts of k, and bits that are the same in every one of
/// `--runs` runs (2), every other of which starts early. Then times in graphs of calls over rotated weights,
/// dense ones by turns with cuBLAS. Each task runs in a child process: one that traps or hangs costs itself
/// only.
///
///   tile_check [--check] [--time] [--sweep] [--type NAME] [--m M] [--runs N] [--cublas PATH]
///   (none of the first three: all; types also f16, bf16, and bf16_narrow, bf16 with x rounded to bf16)
///   tile_check --tune [--type NAME] > FILE: what bench/hopper/tile_rates.py makes the planner's table from
///
/// Build: bench/hopper/tile_check.sh OUTPUT [TYPE...]

#include <cuda.h>
#include <cuda_runtime.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/kernel_table.h"
#include "cublas.h"
#include "cuda_blocks/tma.cuh"
#include "ops/matmul/cuda_tile_sm90a.cuh"
#include "ops/matmul/hopper_dense.h"
#include "ops/matmul/hopper_tile.h"
#include "quant/codec.h"
#include "quant/random_blocks.h"
#include "quant/records.h"

namespace mlxn::cuda {
// DO(type, file of its kernels), unless tile_check.sh has written down some of them.
#if __has_include("tile_check_types.h")
#include "tile_check_types.h"
#else
#define MLXN_TYPES(DO)                                                                                      \
  DO(q4_0, q4_0)                                                                                            \
  DO(q4_1, q4_1)                                                                                            \
  DO(q5_0, q5_0)                                                                                            \
  DO(q5_1, q5_1)                                                                                            \
  DO(q8_0, q8_0)                                                                                            \
  DO(q2_K, q2_K)                                                                                            \
  DO(q3_K, q3_K)                                                                                            \
  DO(q4_K, q4_K)                                                                                            \
  DO(q5_K, q5_K)                                                                                            \
  DO(q6_K, q6_K)                                                                                            \
  DO(iq4_nl, iq4_nl)                                                                                        \
  DO(iq4_xs, iq4_xs)                                                                                        \
  DO(mxfp4, mxfp4)                                                                                          \
  DO(affine4_g64, affine4_g64)                                                                              \
  DO(affine4_g128, affine4_g128)                                                                            \
  DO(affine8_g32, affine8_g32)                                                                              \
  DO(affine8_g64, affine8_g64)                                                                              \
  DO(affine8_g128, affine8_g128)                                                                            \
  DO(affine4_g32_bf16, affine4_g32)                                                                         \
  DO(affine4_g64_bf16, affine4_g64)                                                                         \
  DO(affine4_g128_bf16, affine4_g128)                                                                       \
  DO(affine8_g32_bf16, affine8_g32)                                                                         \
  DO(affine8_g64_bf16, affine8_g64)                                                                         \
  DO(affine8_g128_bf16, affine8_g128)
#endif
#define MLXN_TABLE(type, file) extern const KernelTable cuda_hopper_tile_##file;
MLXN_TYPES(MLXN_TABLE)
MLXN_TABLE(f16, f16)
MLXN_TABLE(bf16, bf16)
MLXN_TABLE(bf16_narrow, bf16_narrow)
extern const KernelTable cuda_hopper_stage;
}  // namespace mlxn::cuda

namespace {

using namespace mlxn;
using ops::HopperStageArgs;
using ops::HopperTileArgs;
using ops::HopperTilePlan;

struct Failure {
  cudaError_t error;
  const char* where;
};
void check(cudaError_t error, const char* where) {
  if (error != cudaSuccess) throw Failure{error, where};
}
#define CHECK(call) check(call, #call)

/// A type of weights, and for dense ones the way of their product.
struct Weights {
  DType type;
  bool narrow = false;

  bool dense() const { return !is_block(type); }
  std::string name() const { return std::string(to_string(type)) + (narrow ? "_narrow" : ""); }
  ops::DenseFormat format() const {
    return type == DType::f16 ? ops::DenseFormat::f16
           : narrow           ? ops::DenseFormat::bf16_narrow
                              : ops::DenseFormat::bf16;
  }
  int kinds() const { return dense() ? tile::kDenseKinds : tile::kKinds; }
  tile::Shape shape(int kind) const {
    return dense() ? tile::dense_shape_of(kind) : ops::hopper_tile_shape(type, kind);
  }
  const char* kernel(int kind) const {
    return (dense() ? ops::hopper_dense_name(format(), kind) : ops::hopper_tile_name(type, kind)).data();
  }
  HopperTilePlan plan(int m, int n, int k, int sms) const {
    return dense() ? ops::plan_hopper_dense(format(), m, n, k, sms)
                   : ops::plan_hopper_tile(type, m, n, k, sms);
  }
  HopperTilePlan plan(const tile::Shape& shape, int m, int n, int k, std::uint32_t splits, int sms) const {
    return dense() ? ops::plan_dense_shape(format(), shape, m, n, k, splits, sms)
                   : ops::plan_hopper_shape(type, shape, m, n, k, splits, sms);
  }
};

#define MLXN_NAME(type, file) {DType::type},
const std::vector<Weights> kTypes = {MLXN_TYPES(MLXN_NAME){DType::f16}, {DType::bf16}, {DType::bf16, true}};

// ---- kernels
// ------------------------------------------------------------------------------------------------------------

template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
constexpr tile::Shape variant_shape() {
  tile::Shape s;
  s.tokens = kTokens;
  s.row_groups = kRowGroups;
  s.k_groups = kKGroups;
  s.blocks_per_sm = kBlocks;
  s.half_bytes = F::kCodeBytes + F::kRowBytes;
  return tile::with_stages(s);
}
template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
using VariantConfig = tile::Config<F, variant_shape<F, kTokens, kRowGroups, kKGroups, kBlocks>()>;
/// Other shapes than the library's, for comparison.
template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
__global__ void __launch_bounds__(128 * (1 + kRowGroups * kKGroups), kBlocks)
    variant(const __grid_constant__ HopperTileArgs args) {
  tile::tile_matmul<VariantConfig<F, kTokens, kRowGroups, kKGroups, kBlocks>>(args);
}

struct Variant {
  const char* name;
  tile::Shape shape;
  const void* function;
};
template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
Variant make_variant(const char* name) {
  return {name, variant_shape<F, kTokens, kRowGroups, kKGroups, kBlocks>(),
          reinterpret_cast<const void*>(&variant<F, kTokens, kRowGroups, kKGroups, kBlocks>)};
}
std::vector<Variant> variants_of(const Weights& weights) {
#ifdef MLXN_NO_VARIANTS
  return {};
#else
  if (weights.type != DType::q4_0) return {};
  using F = tile::Q4_0;
  return {make_variant<F, 16, 2, 2, 1>("16 k2"),
          make_variant<F, 32, 2, 2, 1>("32 k2"),
          make_variant<F, 64, 2, 2, 1>("64 k2"),
          make_variant<F, 16, 4, 1, 1>("16 rows256"),
          make_variant<F, 32, 4, 1, 1>("32 rows256"),
          make_variant<F, 64, 4, 1, 1>("64 rows256"),
          make_variant<F, 16, 2, 1, 2>("16 2/sm"),
          make_variant<F, 32, 2, 1, 2>("32 2/sm"),
          make_variant<F, 32, 1, 1, 2>("32 rows64 2/sm"),
          make_variant<F, 64, 1, 1, 2>("64 rows64 2/sm"),
          make_variant<F, 128, 1, 1, 2>("128 rows64 2/sm"),
          make_variant<F, 64, 3, 1, 1>("64 rows192"),
          make_variant<F, 128, 3, 1, 1>("128 rows192")};
#endif
}

const void* find(const cuda::KernelTable& table, std::string_view name) {
  for (int i = 0; i < table.count; ++i) {
    if (name == table.entries[i].name) return table.entries[i].function;
  }
  return nullptr;
}
const void* kernel_of(const Weights& weights, std::string_view name) {
  switch (weights.type) {
    case DType::f16:
      return find(cuda::cuda_hopper_tile_f16, name);
    case DType::bf16:
      return find(weights.narrow ? cuda::cuda_hopper_tile_bf16_narrow : cuda::cuda_hopper_tile_bf16, name);
#define MLXN_FIND(type, file) \
  case DType::type:           \
    return find(cuda::cuda_hopper_tile_##file, name);
    MLXN_TYPES(MLXN_FIND)
    default:
      return nullptr;
  }
}

// ---- data
// ---------------------------------------------------------------------------------------------------------------

struct Matrix {
  std::vector<std::uint8_t> records;
  std::vector<float> values;
  std::vector<std::int32_t> exponents;  // of rows
};
__host__ __device__ inline std::uint32_t mix(std::uint64_t v) {
  v += 0x9E3779B97F4A7C15ull;
  v = (v ^ (v >> 30)) * 0xBF58476D1CE4E5B9ull;
  v = (v ^ (v >> 27)) * 0x94D049BB133111EBull;
  return static_cast<std::uint32_t>((v ^ (v >> 31)) >> 16);
}

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

/// Random blocks; every fourth row's scales are 2^-`spread` of the others'.
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
  const quant::RecordFormat format = quant::record_format(type);
  m.records.resize(quant::record_grid(format, n, k).records() * format.bytes());
  quant::pack_records(type, blocks.data(), n, k, m.records.data());
  return m;
}

/// Normal numbers, in row r times 2^(r % 3 * spread - spread); type as in quant::kElement..., `exact` what it
/// holds.
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

/// What a product is added to, which y's types hold; i: place in y.
__host__ __device__ inline float residual_at(long long i) { return float(int(mix(i) % 255) - 127) / 32; }
__global__ void fill_residual(void* y, unsigned type, int m, int n, int stride) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < (long long)m * stride; i += gridDim.x * 256ll) {
    if (i % stride >= n) continue;
    if (type == quant::kElementF32)
      static_cast<float*>(y)[i] = residual_at(i);
    else
      static_cast<std::uint16_t*>(y)[i] = type == quant::kElementF16
                                              ? std::uint16_t(sm90::f32_to_f16x2(residual_at(i), 0.0f))
                                              : std::uint16_t(__float_as_uint(residual_at(i)) >> 16);
  }
}

constexpr float kNormEps = 1e-5f;
__host__ __device__ inline float norm_at(int i) { return 0.25f + float(mix(i + 7000000) % 1024) / 512; }
/// Rows become what a norm makes of them.
__global__ void normalise(float* x, int k) {
  __shared__ double sums[256];
  float* row = x + (long long)blockIdx.x * k;
  double sum = 0;
  for (int i = threadIdx.x; i < k; i += 256) sum += double(row[i]) * row[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 256; ++i) sums[0] += sums[i];
    sums[0] = 1 / sqrt(sums[0] / k + double(kNormEps));
  }
  __syncthreads();
  for (int i = threadIdx.x; i < k; i += 256) row[i] = float(row[i] * sums[0] * norm_at(i));
}

/// y = x * w^T with float64 sums, 64 x 64 outputs a block, 4 x 4 a thread.
__global__ void __launch_bounds__(256)
    reference(const float* x, const float* w, double* y, int m, int n, int k) {
  __shared__ double xs[16][65];
  __shared__ double ws[16][65];
  const int row0 = blockIdx.x * 64, token0 = blockIdx.y * 64;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  double sums[4][4] = {};
  for (int k0 = 0; k0 < k; k0 += 16) {
    for (int i = threadIdx.x; i < 1024; i += 256) {
      const int column = i % 16, row = i / 16;
      xs[column][row] =
          token0 + row < m && k0 + column < k ? double(x[size_t(token0 + row) * k + k0 + column]) : 0.0;
      ws[column][row] =
          row0 + row < n && k0 + column < k ? double(w[size_t(row0 + row) * k + k0 + column]) : 0.0;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      for (int p = 0; p < 4; ++p) {
        for (int q = 0; q < 4; ++q) sums[p][q] += xs[j][ty + 16 * p] * ws[j][tx + 16 * q];
      }
    }
    __syncthreads();
  }
  for (int p = 0; p < 4; ++p) {
    for (int q = 0; q < 4; ++q) {
      const int token = token0 + ty + 16 * p, row = row0 + tx + 16 * q;
      if (token < m && row < n) y[size_t(token) * n + row] = sums[p][q];
    }
  }
}

struct Difference {
  unsigned long long not_finite, changed, outside;
};
/// Sums of squares by row of w and by token; y has rows of `stride` elements, those from n on must be
/// untouched.
__global__ void compare(const void* y, unsigned type, const double* expected, bool onto, unsigned gate, int m,
                        int n, int stride, double* row_sums, double* token_sums, Difference* out) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < (long long)m * stride; i += gridDim.x * 256ll) {
    const int token = i / stride, row = i % stride;
    float v;
    std::uint32_t bits;
    if (type == quant::kElementF32) {
      bits = static_cast<const std::uint32_t*>(y)[i];
      v = __uint_as_float(bits);
    } else {
      bits = static_cast<const std::uint16_t*>(y)[i];
      v = type == quant::kElementF16 ? sm90::f16_to_f32(std::uint16_t(bits)) : __uint_as_float(bits << 16);
    }
    if (row >= n) {
      if (bits != (type == quant::kElementF32 ? 0xFFFFFFFFu : 0xFFFFu)) atomicAdd(&out->outside, 1ull);
      continue;
    }
    if (!isfinite(v)) {
      atomicAdd(&out->not_finite, 1ull);
      continue;
    }
    double r;
    if (gate == 0) {
      r = expected[size_t(token) * n + row];
    } else {
      const double* half = expected + size_t(token) * 2 * n + row;
      const double z = gate == ops::kHopperTileSilu
                           ? half[0]
                           : (half[0] + 0.044715 * half[0] * half[0] * half[0]) * 2 * 0.79788456080286536;
      r = half[0] / (1 + exp(-z)) * half[n];
    }
    if (onto) r += residual_at(i);
    const double e = double(v) - r;
    atomicAdd(row_sums + 2 * row, e * e);
    atomicAdd(row_sums + 2 * row + 1, r * r);
    atomicAdd(token_sums + 2 * token, e * e);
    atomicAdd(token_sums + 2 * token + 1, r * r);
  }
}

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

// ---- launches
// -----------------------------------------------------------------------------------------------------------

void launch(const void* function, dim3 grid, std::uint32_t threads, std::uint32_t shared,
            std::uint32_t cluster, void* args, cudaStream_t stream, bool early) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[2];
  int count = 0;
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  if (early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  config.attrs = attributes;
  config.numAttrs = count;
  void* parameters[1] = {args};
  CHECK(cudaLaunchKernelExC(&config, function, parameters));
}

/// What is done with a product beside it.
struct Way {
  bool direct = false;          // x is read where it lies, if the plan allows, else staged...
  const float* norm = nullptr;  // ... also with a norm
  bool onto = false;            // y is added to
  unsigned gate = 0;            // kHopperTileSilu ...
};

/// A plan with its memory.
struct Product {
  HopperTilePlan plan;
  const void* function = nullptr;
  bool direct = false;
  HopperTileArgs args{};
  HopperStageArgs stage{};
  std::vector<void*> memory;

  Product(const HopperTilePlan& p, const void* f, const std::vector<std::int32_t>& exponents,
          const std::uint8_t* records, const void* x, unsigned x_type, std::int64_t x_stride, void* y,
          unsigned y_type, std::int64_t y_stride, const Way& way)
      : plan(p), function(f) {
    if (function == nullptr) throw Failure{cudaErrorInvalidValue, "no such kernel"};
    auto take = [&](std::size_t bytes, int value = 0xFF) {
      memory.push_back(device<std::uint8_t>(bytes));
      CHECK(cudaMemset(memory.back(), value, std::max<std::size_t>(bytes, 256)));
      return memory.back();
    };
    if (way.onto || way.gate != 0) plan.fuse(way.gate != 0);
    args = plan.args;
    gpu::TensorMapSpec x_map = plan.x_map;
    direct = way.direct && can_map(plan, x, x_type, x_stride);
    if (direct) {
      x_map.base = static_cast<const std::byte*>(x);
      x_map.row_bytes = x_stride * 2;
    } else {
      stage = plan.stage;
      stage.x.ptr = x;
      stage.x_stride = x_stride;
      stage.x_type = x_type;
      stage.norm.ptr = way.norm;
      stage.norm_eps = kNormEps;
      stage.rows.ptr = static_cast<std::uint16_t*>(take(plan.row_bytes));
      stage.scales.ptr = static_cast<float*>(take(plan.scale_bytes));
      args.x_scales.ptr = stage.scales.ptr;
      x_map.base = reinterpret_cast<const std::byte*>(stage.rows.ptr);
    }
    make_map(args.x, x_map);
    args.counters.ptr = static_cast<std::uint32_t*>(take(plan.counters * 4, 0));
    args.workspace.ptr = static_cast<float*>(take(plan.workspace_bytes));
    args.y.ptr = y;
    args.y_stride = y_stride;
    args.y_type = y_type;
    args.activation = way.gate;
    if (way.onto) args.residual.ptr = y;
    if (way.onto) args.residual_stride = y_stride;
    auto* of_rows = static_cast<std::int32_t*>(take(exponents.size() * 4));
    CHECK(cudaMemcpy(of_rows, exponents.data(), exponents.size() * 4, cudaMemcpyDefault));
    args.exponents.ptr = of_rows;
    use(records);
    CHECK(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(plan.dynamic_shared_bytes)));
  }
  Product(const Product&) = delete;
  ~Product() {
    for (void* p : memory) cudaFree(p);
  }

  static bool can_map(const HopperTilePlan& plan, const void* x, unsigned x_type, std::int64_t x_stride) {
    return plan.can_map(x_type, reinterpret_cast<std::uintptr_t>(x),
                        x_stride * (x_type == quant::kElementF32 ? 4 : 2));
  }
  static void make_map(gpu::TensorMap& to, const gpu::TensorMapSpec& spec) {
    CUtensorMap made;
    CHECK(sm90::tma::make_map(&made, spec));
    static_assert(sizeof made == sizeof to);
    std::memcpy(&to, &made, sizeof made);
  }
  void use(const std::uint8_t* records) {
    gpu::TensorMapSpec map = plan.map;
    map.base = reinterpret_cast<const std::byte*>(records);
    make_map(args.w, map);
  }
  void run_stage(cudaStream_t stream, bool early) {
    if (direct) return;
    const char* name = stage.norm.ptr != nullptr ? "matmul_hopper_stage_normed" : "matmul_hopper_stage";
    launch(find(cuda::cuda_hopper_stage, name), dim3(plan.stage_grid),
           cuda::cuda_hopper_stage.entries[0].threads, 0, 1, &stage, stream, early);
  }
  void run(cudaStream_t stream, bool early) {
    launch(function, dim3(plan.grid[0], plan.grid[1], plan.grid[2]), plan.threads, plan.dynamic_shared_bytes,
           plan.cluster, &args, stream, early);
  }
};

// ---- checks
// -------------------------------------------------------------------------------------------------------------

int failures = 0;
int runs = 2;  // of every product that is checked

/// Elements that differ, of `words` words of 2 or 4 bytes.
template <class T>
__global__ void count_changes(const T* a, const T* b, long long words, Difference* out) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < words; i += gridDim.x * 256ll) {
    if (a[i] != b[i]) atomicAdd(&out->changed, 1ull);
  }
}

/// One matrix and one x with their float64 product.
struct Case {
  Weights weights;
  int n, k, tokens, spread;
  Matrix matrix;
  std::uint8_t* records;
  float* values;
  float* exact;
  void* x;
  unsigned x_type;
  double* expected;
  float* norm = nullptr;

  Case(const Weights& w, int n_, int k_, int tokens_, int spread_, int x_spread, unsigned x_type_,
       bool normed = false)
      : weights(w),
        n(n_),
        k(k_),
        tokens(tokens_),
        spread(spread_),
        matrix(make_matrix(w.type, n_, k_, spread_, 7)),
        x_type(x_type_) {
    records = upload(matrix.records);
    values = upload(matrix.values);
    exact = device<float>(std::size_t(tokens) * k);
    x = device<float>(std::size_t(tokens) * k);
    expected = device<double>(std::size_t(tokens) * n);
    random_x<<<1024, 256>>>(x, exact, (long long)tokens * k, k, x_spread, x_type, 99);
    if (normed) {
      std::vector<float> of_k(k);
      for (int i = 0; i < k; ++i) of_k[i] = norm_at(i);
      norm = upload(of_k);
      normalise<<<tokens, 256>>>(exact, k);
    }
    reference<<<dim3((n + 63) / 64, (tokens + 63) / 64), 256>>>(exact, values, expected, tokens, n, k);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    // The reference against the host, on a few elements.
    std::vector<float> row(k);
    for (int i = 0; i < 6; ++i) {
      const int token = mix(i) % tokens, at = mix(i + 50) % n;
      CHECK(cudaMemcpy(row.data(), exact + std::size_t(token) * k, k * 4, cudaMemcpyDefault));
      double sum = 0, got = 0, size = 0;
      for (int j = 0; j < k; ++j) {
        sum += double(row[j]) * double(matrix.values[std::size_t(at) * k + j]);
        size += std::fabs(double(row[j]) * double(matrix.values[std::size_t(at) * k + j]));
      }
      CHECK(cudaMemcpy(&got, expected + std::size_t(token) * n + at, 8, cudaMemcpyDefault));
      if (!(std::fabs(sum - got) <= 1e-12 * size)) {
        std::printf("REFERENCE DIFFERS: %g %g\n", sum, got);
        ++failures;
      }
    }
  }
  ~Case() {
    for (void* p : {(void*)records, (void*)values, (void*)exact, x, (void*)expected, (void*)norm})
      cudaFree(p);
  }

  /// Staged; where the plan can map x, also direct. With a norm, also onto what is there, and with gates.
  void run(const HopperTilePlan& plan, const void* function, const char* name, unsigned y_type) {
    run(plan, function, name, y_type, Way{false, norm});
    if (norm == nullptr) {
      if (Product::can_map(plan, x, x_type, k)) run(plan, function, name, y_type, Way{true});
      return;
    }
    const bool can_gate = weights.dense() || n % 32 == 0;
    for (unsigned gate : {0u, unsigned(ops::kHopperTileSilu), unsigned(ops::kHopperTileGelu)}) {
      if (gate != 0 && !can_gate) continue;
      for (bool onto : {true, false}) {
        if (gate == 0 && !onto) continue;
        for (int gap : {8, 5}) run(plan, function, name, y_type, Way{false, norm, onto, gate}, gap);
      }
    }
  }
  /// gap: of y, between the rows.
  void run(const HopperTilePlan& plan, const void* function, const char* name, unsigned y_type,
           const Way& way, int gap = 5) {
    const int m = int(plan.args.m), columns = way.gate != 0 ? n / 2 : n, stride = columns + gap;
    const std::size_t bytes = std::size_t(m) * stride * (y_type == quant::kElementF32 ? 4 : 2);
    auto* y = device<std::uint8_t>(bytes);
    auto* first = device<std::uint8_t>(bytes);
    auto* row_sums = device<double>(2 * n);
    auto* token_sums = device<double>(2 * m);
    auto* difference = device<Difference>(1);
    CHECK(cudaMemset(row_sums, 0, 16 * n));
    CHECK(cudaMemset(token_sums, 0, 16 * m));
    CHECK(cudaMemset(difference, 0, sizeof(Difference)));
    {
      Product product(plan, function, matrix.exponents, records, x, x_type, k, y, y_type, stride, way);
      cudaStream_t stream = nullptr;
      CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      CHECK(cudaDeviceSynchronize());  // what was set above; this stream does not wait for it
      for (int i = 0; i < runs; ++i) {
        CHECK(cudaMemsetAsync(y, 0xFF, bytes, stream));
        if (way.onto) fill_residual<<<512, 256, 0, stream>>>(y, y_type, m, columns, stride);
        product.run_stage(stream, i % 2 == 1);
        product.run(stream, i % 2 == 1);
        if (i == 0)
          CHECK(cudaMemcpyAsync(first, y, bytes, cudaMemcpyDefault, stream));
        else if (y_type == quant::kElementF32)
          count_changes<<<512, 256, 0, stream>>>(reinterpret_cast<std::uint32_t*>(y),
                                                 reinterpret_cast<std::uint32_t*>(first),
                                                 (long long)bytes / 4, difference);
        else
          count_changes<<<512, 256, 0, stream>>>(reinterpret_cast<std::uint16_t*>(y),
                                                 reinterpret_cast<std::uint16_t*>(first),
                                                 (long long)bytes / 2, difference);
      }
      compare<<<1024, 256, 0, stream>>>(y, y_type, expected, way.onto, way.gate, m, columns, stride, row_sums,
                                        token_sums, difference);
      CHECK(cudaGetLastError());
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaStreamDestroy(stream));
    }
    Difference d{};
    std::vector<double> rows(2 * n), per_token(2 * m);
    CHECK(cudaMemcpy(&d, difference, sizeof d, cudaMemcpyDefault));
    CHECK(cudaMemcpy(rows.data(), row_sums, 16 * n, cudaMemcpyDefault));
    CHECK(cudaMemcpy(per_token.data(), token_sums, 16 * m, cudaMemcpyDefault));
    double error = 0, size = 0, worst_row = 0, worst_token = 0;
    int bad_row = 0, bad_token = 0;
    for (int i = 0; i < columns; ++i) {
      error += rows[2 * i];
      size += rows[2 * i + 1];
      if (rows[2 * i] > worst_row * rows[2 * i + 1]) worst_row = rows[2 * i] / rows[2 * i + 1], bad_row = i;
    }
    // Of all tokens alike, though their sizes differ.
    double mean = 0;
    for (int i = 0; i < m; ++i) {
      const double nmse = per_token[2 * i] / per_token[2 * i + 1];
      mean += nmse / m;
      if (nmse > worst_token) worst_token = nmse, bad_token = i;
    }
    double limit = weights.narrow                 ? 1e-5
                   : y_type == quant::kElementF32 ? 1e-7
                   : y_type == quant::kElementF16 ? 2e-7
                                                  : 1e-5;
    if (way.gate != 0) limit *= 4;  // two products, and what the activation makes of one
    const bool good =
        d.not_finite == 0 && d.changed == 0 && d.outside == 0 && mean <= limit && worst_token < 4 * limit;
    if (!good) ++failures;
    std::printf(
        "%-34s n %5d k %5d m %4d parts %2u x%u%s%s%s y%u gap %d spread %2d nmse %.2e worst row %.1e token "
        "%.1e %s",
        name, n, k, m, plan.splits, x_type,
        way.direct            ? " direct"
        : way.norm != nullptr ? " normed"
                              : "",
        way.gate == 0                      ? ""
        : way.gate == ops::kHopperTileSilu ? " silu"
                                           : " gelu",
        way.onto ? " onto" : "", y_type, gap, spread, mean, worst_row, worst_token, good ? "ok\n" : "FAILED");
    if (!good) {
      std::printf(": not finite %llu changed %llu outside %llu of %lld; row %d token %d\n", d.not_finite,
                  d.changed, d.outside, (long long)m * n, bad_row, bad_token);
    }
    std::fflush(stdout);
    for (void* p : {(void*)y, (void*)first, (void*)row_sums, (void*)token_sums, (void*)difference})
      cudaFree(p);
  }
};

int processors() {
  cudaDeviceProp p{};
  CHECK(cudaGetDeviceProperties(&p, 0));
  return p.multiProcessorCount;
}

void check_type(const Weights& type) {
  const int sms = processors();
  const bool wide = block_elems(type.type) > 32;
  auto all = [&](Case& c, std::initializer_list<unsigned> y_types, bool few) {
    for (int kind = 0; kind < type.kinds(); ++kind) {
      const tile::Shape shape = type.shape(kind);
      for (int m : {shape.tokens - 3, shape.tokens + 5}) {
        if (m > c.tokens || (few && m > shape.tokens)) continue;
        for (std::uint32_t splits : {1u, 3u}) {
          if (splits > 1 && shape.form != tile::Form::parts) continue;
          for (unsigned y_type : y_types) {
            c.run(type.plan(shape, m, c.n, c.k, splits, sms), kernel_of(type, type.kernel(kind)),
                  type.kernel(kind), y_type);
          }
        }
      }
    }
    for (const Variant& v : variants_of(type)) {
      if (few) continue;
      for (std::uint32_t splits : {1u, 3u}) {
        const int m = v.shape.tokens - 3;
        c.run(type.plan(v.shape, m, c.n, c.k, splits, sms), v.function, v.name, quant::kElementF32);
      }
    }
  };
  {
    Case c(type, 4100, wide ? 2816 : 2880, 270, 0, 0, quant::kElementF32);
    all(c, {quant::kElementF32}, false);
  }
  {
    Case c(type, 100, wide ? 768 : 704, 270, 8, 0, quant::kElementF32);
    all(c, {quant::kElementF16, quant::kElementBf16}, true);
  }
  {
    Case c(type, 272, 11264, 270, 6, 60, quant::kElementF32);
    all(c, {quant::kElementF32}, true);
  }
  {
    Case c(type, 300, 1024, 270, 4, 4, quant::kElementF16);
    all(c, {quant::kElementF32}, true);
  }
  {
    Case c(type, 300, wide ? 1024 : 1056, 270, 4, 60, quant::kElementBf16);
    all(c, {quant::kElementF32}, true);
  }
  {
    // Of f16, or of bf16 where that is what is multiplied, as it lies; k ends inside of a step, and of parts.
    Case c(type, 300, wide ? 2816 : 2880, 270, 4, 2, type.narrow ? quant::kElementBf16 : quant::kElementF16);
    all(c, {quant::kElementF32, quant::kElementF16}, false);
  }
  {
    Case c(type, type.dense() ? 300 : 352, wide ? 2816 : 2880, 270, 4, 2, quant::kElementF32, true);
    all(c, {quant::kElementF32, quant::kElementF16}, true);
  }
  {
    // More k than a thread of the stage keeps.
    Case c(type, 96, wide ? 16640 : 16672, 37, 0, 30, quant::kElementF32, true);
    all(c, {quant::kElementF32, quant::kElementBf16}, true);
  }
  if (!type.dense()) return;
  for (int k : {2112, 1003, 37}) {  // ends inside of a plane, of 16 bytes, and in the first plane
    Case c(type, 389, k, 270, 3, 0, quant::kElementF32);
    all(c, {quant::kElementF32}, true);
  }
}

/// Rows of x that are not finite spoil themselves only; zeros give zeros.
void check_special() {
  const int n = 130, k = 512, m = 20;
  const Matrix matrix = make_matrix(DType::q4_0, n, k, 0, 3);
  std::vector<float> x(m * k);
  for (int i = 0; i < m * k; ++i) x[i] = float(f16(float(mix(i)) / 4294967296.0f - 0.5f));
  x[2 * k + 7] = INFINITY;
  x[5 * k + 300] = NAN;
  for (int i = 0; i < k; ++i) x[9 * k + i] = 0.0f;
  auto* records = upload(matrix.records);
  for (const bool direct : {false, true}) {
    std::vector<std::uint16_t> halves;
    for (int i = 0; i < k; ++i) {  // beyond what f16 holds, or of its subnormals and near its largest
      x[11 * k + i] = direct ? float(f16(x[11 * k + i] * 1e-6f)) : x[11 * k + i] * 1e-38f;
      x[12 * k + i] = direct ? float(f16(x[10 * k + i] * 1.3e5f)) : x[12 * k + i] * 1e37f;
    }
    for (const float v : x) halves.push_back(f16(v).bits);
    void* xd = direct ? static_cast<void*>(upload(halves)) : upload(x);
    auto* y = device<float>(m * n);
    CHECK(cudaMemset(y, 0xFF, m * n * 4));
    const HopperTilePlan plan =
        ops::plan_hopper_shape(DType::q4_0, ops::hopper_tile_shape(DType::q4_0, 1), m, n, k, 2, processors());
    Product product(plan, kernel_of({DType::q4_0}, ops::hopper_tile_name(DType::q4_0, 1)), matrix.exponents, records,
                    xd, direct ? quant::kElementF16 : quant::kElementF32, k, y, quant::kElementF32, n,
                    Way{direct});
    if (product.direct != direct) throw Failure{cudaErrorUnknown, "can_map"};
    product.run_stage(nullptr, false);
    product.run(nullptr, false);
    std::vector<float> out(m * n);
    CHECK(cudaMemcpy(out.data(), y, m * n * 4, cudaMemcpyDefault));
    int wrong = 0;
    for (int token = 0; token < m; ++token) {
      for (int row = 0; row < n; ++row) {
        const float v = out[token * n + row];
        double want = 0, size = 0;
        for (int i = 0; i < k; ++i) {
          want += double(x[token * k + i]) * double(matrix.values[row * k + i]);
          size += std::fabs(double(x[token * k + i]) * double(matrix.values[row * k + i]));
        }
        const bool broken = token == 2 || token == 5;
        const bool good = broken ? !std::isfinite(v) : std::fabs(double(v) - want) <= 1e-3 * size + 1e-44;
        if (!good && ++wrong < 5)
          std::printf("token %d row %d: %g, wanted %g\n", token, row, double(v), want);
      }
    }
    std::printf("special rows%s: %s\n", direct ? ", direct" : "", wrong == 0 ? "ok" : "FAILED");
    failures += wrong != 0;
  }
}

// ---- times
// --------------------------------------------------------------------------------------------------------------

/// A graph of calls, and how long its replays took.
class Chain {
 public:
  template <class Call>
  Chain(cudaStream_t stream, int calls, const Call& call) : stream_(stream), calls_(calls) {
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < calls; ++i) call(i);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec_, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventCreate(&begin_));
    CHECK(cudaEventCreate(&end_));
  }
  Chain(const Chain&) = delete;
  ~Chain() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaGraphExecDestroy(exec_);
  }

  void replay(bool counts) {
    CHECK(cudaEventRecord(begin_, stream_));
    CHECK(cudaGraphLaunch(exec_, stream_));
    CHECK(cudaEventRecord(end_, stream_));
    CHECK(cudaStreamSynchronize(stream_));
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, begin_, end_));
    if (counts) times_.push_back(ms);
  }
  /// Microseconds a call, the median.
  double us() {
    std::sort(times_.begin(), times_.end());
    return times_[times_.size() / 2] * 1000.0 / calls_;
  }

 private:
  cudaStream_t stream_;
  int calls_;
  cudaGraphExec_t exec_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<float> times_;
};

class Bench {
 public:
  Bench(const Weights& type, int n, int k, int max_m) : type_(type), n_(n), k_(k), sms_(processors()) {
    CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    // 256 rows on the host, the others are copies of them: where they lie is what counts.
    const Matrix part = make_matrix(type.type, 256, k, 0, 11);
    for (int row = 0; row < n; ++row) exponents_.push_back(part.exponents[std::size_t(row) % 256]);
    // Together four times the L2.
    const std::size_t bytes = part.records.size() * (n / 256);
    const int matrices = std::max<int>(16, int((std::size_t(240) << 20) / bytes));
    for (int i = 0; i < matrices; ++i) {
      auto* records = device<std::uint8_t>(bytes);
      CHECK(cudaMemcpy(records, part.records.data(), part.records.size(), cudaMemcpyDefault));
      for (std::size_t done = 1; done < std::size_t(n / 256); ++done) {
        CHECK(cudaMemcpyAsync(records + done * part.records.size(), records, part.records.size(),
                              cudaMemcpyDefault, stream_));
      }
      records_.push_back(records);
    }
    x_ = device<float>(std::size_t(max_m) * k);
    y_ = device<float>(std::size_t(max_m) * n);
    norm_ = upload(std::vector<float>(k, 1.0f));
    random_x<<<1024, 256, 0, stream_>>>(x_, nullptr, (long long)max_m * k, k, 0, quant::kElementF32, 5);
    narrow_x_ = device<std::uint16_t>(std::size_t(max_m) * k);
    random_x<<<1024, 256, 0, stream_>>>(narrow_x_, nullptr, (long long)max_m * k, k, 0,
                                        type.type == DType::bf16 ? quant::kElementBf16 : quant::kElementF16,
                                        5);
    CHECK(cudaStreamSynchronize(stream_));
  }
  ~Bench() {
    for (auto* p : records_) cudaFree(p);
    cudaFree(x_);
    cudaFree(y_);
    cudaFree(narrow_x_);
    cudaFree(norm_);
  }

  void chosen(int m) {
    const HopperTilePlan plan = type_.plan(m, n_, k_, sms_);
    const void* function = kernel_of(type_, plan.kernel);
    const double plain = time(plan, function, false, true, false),
                 early = time(plan, function, false, true, true);
    const double both_plain = time(plan, function, true, true, false),
                 both = time(plan, function, true, true, true);
    const double stage = time(plan, function, true, false, true);
    const double normed = time(plan, function, true, false, true, {false, norm_}),
                 added = time(plan, function, false, true, true, {false, nullptr, true}),
                 gated =
                     time(plan, function, false, true, true, {false, nullptr, false, ops::kHopperTileSilu});
    char direct[64] = "";
    if (plan.can_map(narrow_type(), 0, 2ll * k_)) {
      std::snprintf(direct, sizeof direct, ", from 16 bits %7.2f plain %7.2f early",
                    time(plan, function, true, true, false, {true}),
                    time(plan, function, true, true, true, {true}));
    }
    std::printf(
        "%-30s n %5d k %5d m %4d parts %2u: product %7.2f plain %7.2f early, with staging %7.2f plain %7.2f "
        "early, "
        "staging alone %6.2f, with a norm %6.2f, product onto y %7.2f, gated %7.2f early%s us; %4.0f "
        "TFLOP/s, weights "
        "%4.0f GB/s\n",
        std::string(plan.kernel).c_str(), n_, k_, m, plan.splits, plain, early, both_plain, both, stage,
        normed, added, gated, direct, 2e-6 * m * n_ * k_ / early,
        double(plan.map.row_bytes) * double(plan.map.rows) / early * 1e-3);
    std::fflush(stdout);
  }

  /// The library's choice, and then every other kernel and way of it, by turns with cuBLAS.
  void beside_cublas(bench::Cublas& cublas, int m, bool all) {
    const HopperTilePlan chosen = type_.plan(m, n_, k_, sms_);
    struct Entry {
      std::string name;
      std::unique_ptr<Product> product;
      std::unique_ptr<Chain> chain;
    };
    std::vector<Entry> entries;
    const int calls = calls_for(m);
    auto add = [&](const std::string& name, const HopperTilePlan& plan, const void* function, bool stage,
                   bool direct = false) {
      Entry e{name, product(plan, function, Way{direct}), nullptr};
      Product& p = *e.product;
      p.run_stage(stream_, false);
      CHECK(cudaStreamSynchronize(stream_));
      e.chain = std::make_unique<Chain>(stream_, calls, [&](int i) {
        p.use(records_[i % records_.size()]);
        if (stage) p.run_stage(stream_, true);
        p.run(stream_, true);
      });
      entries.push_back(std::move(e));
    };
    const std::string name(chosen.kernel);
    add(name + " parts " + std::to_string(chosen.splits), chosen, kernel_of(type_, name), false);
    add("  with staging", chosen, kernel_of(type_, name), true);
    if (chosen.can_map(narrow_type(), 0, 2ll * k_))
      add("  from 16 bits", chosen, kernel_of(type_, name), false, true);
    if (all) {
      auto try_shape = [&](const tile::Shape& shape, const void* function, const std::string& label) {
        if (shape.tokens < m && shape.tokens < 128) return;
        if (shape.tokens > 2 * m && shape.tokens > 16) return;
        for (std::uint32_t splits : {1u, 2u, 3u, 4u}) {
          if (splits > 1 && shape.form != tile::Form::parts) break;
          HopperTilePlan plan = type_.plan(shape, m, n_, k_, splits, sms_);
          const std::uint32_t blocks = plan.grid[0] * plan.grid[1] * plan.grid[2];
          if (splits > 1 && blocks > 2u * sms_) break;
          const bool walks = shape.form == tile::Form::tiles && m > 512;
          for (std::uint32_t group : {2u, 4u, 8u, 16u}) {
            if (!walks && group != 8) continue;
            plan.args.token_group = group;
            add(label + " parts " + std::to_string(plan.splits) +
                    (walks ? " group " + std::to_string(group) : ""),
                plan, function, false);
          }
        }
      };
      for (int kind = 0; kind < type_.kinds(); ++kind) {
        try_shape(type_.shape(kind), kernel_of(type_, type_.kernel(kind)), type_.kernel(kind));
      }
      for (const Variant& v : variants_of(type_))
        try_shape(v.shape, v.function, std::string("variant ") + v.name);
    }
    std::unique_ptr<Chain> peer = std::make_unique<Chain>(stream_, calls, [&](int i) {
      if (!cublas.multiply(stream_, type_.type == DType::bf16, narrow_x_, records_[i % records_.size()], y_, m, n_,
                           k_)) {
        throw Failure{cudaErrorUnknown, "cublasGemmEx"};
      }
    });
    const int replays = m >= 512 ? 5 : 9;
    for (int i = -1; i < replays; ++i) {
      peer->replay(i >= 0);
      for (Entry& e : entries) e.chain->replay(i >= 0);
      if (entries.size() > 4) peer->replay(i >= 0);
    }
    const double theirs = peer->us();
    std::printf("%s n %5d k %5d m %4d: cuBLAS %7.2f us %4.0f TFLOP/s\n", type_.name().c_str(), n_, k_, m,
                theirs, 2e-6 * m * n_ * k_ / theirs);
    for (Entry& e : entries) {
      const double us = e.chain->us();
      std::printf("  %-52s %7.2f us %4.0f TFLOP/s %4.0f GB/s  %.3f of cuBLAS's rate\n", e.name.c_str(), us,
                  2e-6 * m * n_ * k_ / us, 2e-3 * n_ * k_ / us, theirs / us);
    }
    std::fflush(stdout);
  }

  void sweep(int m) {
    auto one = [&](const tile::Shape& shape, const void* function, const char* name, std::uint32_t splits) {
      const HopperTilePlan plan = type_.plan(shape, m, n_, k_, splits, sms_);
      if (plan.splits != splits && shape.form == tile::Form::parts) return;
      const std::uint32_t blocks = plan.grid[0] * plan.grid[1] * plan.grid[2];
      if (shape.form == tile::Form::parts && blocks > 4u * sms_ * shape.blocks_per_sm && splits > 1) return;
      const double early = time(plan, function, false, true, true);
      std::printf("sweep %s %-28s n %5d k %5d m %4d parts %2u blocks %4u stages %d %d: %7.2f us early\n",
                  type_.name().c_str(), name, n_, k_, m, plan.splits, blocks, shape.x_stages, shape.w_stages,
                  early);
      std::fflush(stdout);
    };
    for (int kind = 0; kind < type_.kinds(); ++kind) {
      const tile::Shape shape = type_.shape(kind);
      if (shape.tokens < m && shape.tokens < 128) continue;
      if (shape.tokens > 2 * m && shape.tokens > 16) continue;
      for (std::uint32_t splits : {1u, 2u, 3u, 4u, 6u, 8u}) {
        if (splits > 1 && shape.form != tile::Form::parts) break;
        one(shape, kernel_of(type_, type_.kernel(kind)), type_.kernel(kind), splits);
      }
    }
    for (const Variant& v : variants_of(type_)) {
      if (v.shape.tokens < m && v.shape.tokens < 128) continue;
      if (v.shape.tokens > 2 * m && v.shape.tokens > 16) continue;
      for (std::uint32_t splits : {1u, 2u, 3u, 4u, 6u, 8u}) one(v.shape, v.function, v.name, splits);
    }
  }

  /// Every kernel and parting of k that may be the best, one JSON object a line.
  void tune(int m) {
    for (int kind = 0; kind < type_.kinds(); ++kind) {
      const tile::Shape shape = type_.shape(kind);
      if (shape.tokens > 2 * m && kind > 0) continue;
      if (shape.tokens < 128 && m > 2 * shape.tokens) continue;
      for (std::uint32_t splits = 1; splits <= 16; ++splits) {
        if (splits > 1 && shape.form != tile::Form::parts) break;
        const HopperTilePlan plan = type_.plan(shape, m, n_, k_, splits, sms_);
        if (plan.splits != splits && shape.form == tile::Form::parts) continue;
        const std::uint32_t blocks = plan.grid[0] * plan.grid[1] * plan.grid[2];
        if (splits > 1 && (plan.args.split_steps < 4 || blocks > 2u * sms_)) break;
        const double us = time(plan, kernel_of(type_, type_.kernel(kind)), false, true, true, {}, m >= 512 ? 3 : 5);
        const ops::HopperTileTerms t = ops::hopper_tile_terms(plan, sms_);
        std::printf(
            "{\"type\":\"%s\",\"kind\":%d,\"n\":%d,\"k\":%d,\"m\":%d,\"parts\":%u,\"us\":%.3f,\"steps\":%.0f,"
            "\"filled\":%.2f,\"beside\":%.0f,\"waves\":%.0f,\"splits\":%.0f,\"bytes\":%.0f,\"busy\":%.2f}\n",
            type_.name().c_str(), kind, n_, k_, m, plan.splits, us, t.steps, t.filled, t.beside, t.waves, t.splits, t.bytes, t.busy);
      }
    }
    std::fflush(stdout);
  }

 private:
  int calls_for(int m) const { return m >= 512 ? 8 : std::max<int>(32, int(records_.size())); }

  unsigned narrow_type() const {
    return type_.type == DType::bf16 ? quant::kElementBf16 : quant::kElementF16;
  }
  std::unique_ptr<Product> product(const HopperTilePlan& plan, const void* function, const Way& way = {}) {
    const void* x = x_;
    if (way.direct) x = narrow_x_;
    return std::make_unique<Product>(plan, function, exponents_, records_[0], x,
                                     way.direct ? narrow_type() : unsigned(quant::kElementF32), k_, y_,
                                     quant::kElementF32, n_, way);
  }

  /// Microseconds a call.
  double time(const HopperTilePlan& plan, const void* function, bool stage, bool multiply, bool early,
              const Way& way = {}, int replays = 0) {
    const std::unique_ptr<Product> p = product(plan, function, way);
    p->run_stage(stream_, false);
    CHECK(cudaStreamSynchronize(stream_));
    Chain chain(stream_, calls_for(int(plan.args.m)), [&](int i) {
      p->use(records_[i % records_.size()]);
      if (stage) p->run_stage(stream_, early);
      if (multiply) p->run(stream_, early);
    });
    if (replays == 0) replays = plan.args.m >= 512 ? 5 : 11;
    for (int i = -2; i < replays; ++i) chain.replay(i >= 0);
    return chain.us();
  }

  Weights type_;
  int n_, k_, sms_;
  std::vector<std::int32_t> exponents_;
  cudaStream_t stream_ = nullptr;
  std::vector<std::uint8_t*> records_;
  float* x_ = nullptr;
  std::uint16_t* narrow_x_ = nullptr;  // of 16 bits, also cuBLAS's
  float* y_ = nullptr;
  float* norm_ = nullptr;
};

/// The device and the day, as a line for tile_rates.py.
void say_device() {
  cudaDeviceProp p{};
  CHECK(cudaGetDeviceProperties(&p, 0));
  int driver = 0;
  CHECK(cudaDriverGetVersion(&driver));
  const std::time_t now = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  std::printf("{\"device\":\"%s\",\"multiprocessors\":%d,\"cuda\":\"%d.%d\",\"date\":\"%s\"}\n", p.name,
              p.multiProcessorCount, driver / 1000, driver % 1000 / 10, date);
}

// ---- processes
// ----------------------------------------------------------------------------------------------------------

/// Runs a task in a process of its own.
void task(const char* name, unsigned seconds, const std::function<void()>& work) {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(seconds);
    failures = 0;  // the child's own: it starts with what other tasks have left in this process
    int code = 0;
    try {
      work();
      code = failures == 0 ? 0 : 1;
    } catch (const Failure& f) {
      std::printf("%s: %s in %s\n", name, cudaGetErrorString(f.error), f.where);
      code = 3;
    }
    std::fflush(stdout);
    _exit(code);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::printf("TASK FAILED: %s (%s %d)\n", name, WIFEXITED(status) ? "exit" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    ++failures;
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool checks = false, times = false, sweeps = false, tunes = false;
  std::string only, cublas_path;
  int only_m = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--check")
      checks = true;
    else if (arg == "--time")
      times = true;
    else if (arg == "--sweep")
      sweeps = true;
    else if (arg == "--tune")
      tunes = true;
    else if (arg == "--type" && i + 1 < argc)
      only = argv[++i];
    else if (arg == "--runs" && i + 1 < argc)
      runs = std::max(1, std::atoi(argv[++i]));
    else if (arg == "--cublas" && i + 1 < argc)
      cublas_path = argv[++i];
    else if (arg == "--m" && i + 1 < argc)
      only_m = std::atoi(argv[++i]);
    else
      return std::fprintf(stderr, "unknown option %s\n", arg.c_str()), 2;
  }
  if (!checks && !times && !sweeps && !tunes) checks = times = sweeps = true;
  auto wanted = [&](const Weights& type) { return only.empty() || only == type.name(); };
  if (checks) {
    const auto is_q4_0 = [](const Weights& type) { return type.type == DType::q4_0; };
    const bool has_q4_0 = std::any_of(kTypes.begin(), kTypes.end(), is_q4_0);
    if (has_q4_0 && (only.empty() || only == "q4_0")) task("special", 20, check_special);
    for (const Weights& type : kTypes) {
      if (wanted(type)) task(type.name().c_str(), 60, [&] { check_type(type); });
    }
  }
  struct Size {
    int n, k;
  };
  if (tunes) {
    task("device", 20, say_device);
    for (const Weights& type : kTypes) {
      if (!wanted(type)) continue;
      task("tune", 60, [&] {
        for (const Size& size : {Size{4096, 14336}, Size{14336, 4096}, Size{2048, 4096}}) {
          Bench bench(type, size.n, size.k, 4096);
          for (int m : {8, 16, 32, 48, 64, 128, 192, 256, 512, 1024, 4096}) {
            if (only_m == 0 || only_m == m) bench.tune(m);
          }
        }
      });
    }
  }
  for (const Size& size : {Size{4096, 14336}, Size{14336, 4096}}) {
    for (const Weights& weights : kTypes) {
      if (!times || !wanted(weights) || weights.dense()) continue;
      const DType type = weights.type;
      const bool main_type = type == DType::q4_0 || type == DType::q4_K || type == DType::q6_K || type == DType::q8_0;
      task("time", 40, [&] {
        Bench bench(weights, size.n, size.k, 4096);
        for (int m : {8, 16, 32, 64, 128, 512, 2048, 4096}) {
          if (only_m != 0 && only_m != m) continue;
          if (!main_type && m != 16 && m != 64 && m != 512) continue;
          bench.chosen(m);
        }
      });
    }
    for (const Weights& type : {Weights{DType::f16}, Weights{DType::bf16}, Weights{DType::bf16, true}}) {
      if ((!times && !sweeps) || !wanted(type)) continue;
      task("dense", 60, [&] {
        Bench measured(type, size.n, size.k, 4096);
        bench::Cublas cublas;
        if (!cublas.open(cublas_path)) throw Failure{cudaErrorUnknown, "cuBLAS"};
        for (int m : {1, 16, 32, 64, 128, 256, 512, 2048, 4096}) {
          if (only_m == 0 || only_m == m) measured.beside_cublas(cublas, m, sweeps);
        }
      });
    }
    for (const Weights& type : kTypes) {
      if (!sweeps || !wanted(type) || (type.type != DType::q4_0 && type.type != DType::q4_K && type.type != DType::q6_K)) continue;
      task("sweep", 60, [&] {
        Bench bench(type, size.n, size.k, 512);
        for (int m : {8, 16, 32, 64, 128, 256, 512}) {
          if (type.type != DType::q4_0 && m > 64) break;
          if (only_m == 0 || only_m == m) bench.sweep(m);
        }
      });
    }
  }
  std::printf("%s\n", failures == 0 ? "ALL OK" : "FAILURES");
  return failures == 0 ? 0 : 1;
}
