#include "tile_check/case.h"

#include <cmath>
#include <cstdio>
#include <vector>

#include "cuda_blocks/ptx.cuh"
#include "quant/gpu_weight.h"

namespace tile_check {

namespace {

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

/// Elements that differ, of `words` words of 2 or 4 bytes.
template <class T>
__global__ void count_changes(const T* a, const T* b, long long words, Difference* out) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < words; i += gridDim.x * 256ll) {
    if (a[i] != b[i]) atomicAdd(&out->changed, 1ull);
  }
}

}  // namespace

int failures = 0;
int runs = 2;

Case::Case(const Weights& w, int n_, int k_, int tokens_, int spread_, int x_spread, unsigned x_type_,
           bool normed)
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
  fill_random_x(x, exact, (long long)tokens * k, k, x_spread, x_type, 99);
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

Case::~Case() {
  for (void* p : {(void*)records, (void*)values, (void*)exact, x, (void*)expected, (void*)norm})
    cudaFree(p);
}

void Case::run(const HopperTilePlan& plan, const void* function, const char* name, unsigned y_type) {
  run(plan, function, name, y_type, Way{false, norm});
  if (norm == nullptr) {
    // Rows of y of 16 bits at multiples of 8 bytes too.
    if (y_type != quant::kElementF32) run(plan, function, name, y_type, Way{}, 8 - n % 4);
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

void Case::run(const HopperTilePlan& plan, const void* function, const char* name, unsigned y_type,
               const Way& way, int gap) {
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

}  // namespace tile_check
