// x as the tile kernels for Hopper read it: see HopperStageArgs. Bound by memory: a block of 512 threads
// takes a row, eight elements a thread at a time, and keeps what it read until the row's largest magnitude is
// known, and with a norm the sum of its squares.
#include <cstdint>

#include "backends/cuda/kernel_table.h"
#include "cuda_blocks/ptx.cuh"
#include "ops/matmul/hopper_tile_args.h"
#include "quant/gpu_weight.h"

namespace mlxn::tile {
namespace {

using ops::HopperStageArgs;

constexpr std::uint32_t kStageThreads = 512;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr std::uint32_t kHeld = 4;  // runs of eight elements that a thread keeps, of rows up to 16,384

struct Eight {
  float v[8];
};

__device__ __forceinline__ float element(const HopperStageArgs& args, std::int64_t at) {
  if (args.x_type == quant::kElementF32) return static_cast<const float*>(args.x.ptr)[at];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(args.x.ptr)[at];
  return args.x_type == quant::kElementF16 ? sm90::f16_to_f32(bits)
                                           : __uint_as_float(std::uint32_t(bits) << 16);
}

/// Elements k.. of a row that begins at `row`; `wide`: from an address that is a multiple of 16. Zeros behind
/// the row's end.
template <bool kIsF32>
__device__ __forceinline__ Eight load8(const HopperStageArgs& args, std::int64_t row, std::uint32_t k,
                                       bool wide) {
  Eight e;
  if (wide && k + 8 <= args.k) {
    if (kIsF32 || args.x_type == quant::kElementF32) {
      const float4* from = reinterpret_cast<const float4*>(static_cast<const float*>(args.x.ptr) + row + k);
      const float4 a = from[0], b = from[1];
      e = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    } else {
      const uint4 w =
          *reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(args.x.ptr) + row + k);
      const std::uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (args.x_type == quant::kElementF16) {
          const float2 pair = sm90::f16x2_to_f32(words[i]);
          e.v[2 * i] = pair.x;
          e.v[2 * i + 1] = pair.y;
        } else {
          e.v[2 * i] = __uint_as_float(words[i] << 16);
          e.v[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
        }
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) e.v[i] = k + i < args.k ? element(args, row + k + i) : 0.0f;
  }
  return e;
}

/// The norm's weights of these elements, which the kernel before may have made: no load for what is constant.
__device__ __forceinline__ Eight load_norm8(const HopperStageArgs& args, std::uint32_t k) {
  Eight e;
  if (k + 8 <= args.k) {
    const float4* from = reinterpret_cast<const float4*>(args.norm.ptr + k);
    const float4 a = __ldcg(from), b = __ldcg(from + 1);
    e = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) e.v[i] = k + i < args.k ? args.norm.ptr[k + i] : 0.0f;
  }
  return e;
}
__device__ __forceinline__ float add_squares(const Eight& e, float sum) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = __fmaf_rn(e.v[i], e.v[i], sum);
  return sum;
}
__device__ __forceinline__ void multiply(Eight& e, const Eight& by) {
#pragma unroll
  for (int i = 0; i < 8; ++i) e.v[i] *= by.v[i];
}

/// The larger of `bits` and the magnitudes, as the bits of an f32: NaN is above infinity.
__device__ __forceinline__ std::uint32_t largest(const Eight& e, std::uint32_t bits) {
#pragma unroll
  for (int i = 0; i < 8; ++i) bits = max(bits, __float_as_uint(e.v[i]) & 0x7FFFFFFFu);
  return bits;
}

__device__ __forceinline__ uint4 halves(const Eight& e, float scale, bool is_bf16) {
  if (is_bf16) {
    return make_uint4(sm90::f32_to_bf16x2(e.v[0] * scale, e.v[1] * scale),
                      sm90::f32_to_bf16x2(e.v[2] * scale, e.v[3] * scale),
                      sm90::f32_to_bf16x2(e.v[4] * scale, e.v[5] * scale),
                      sm90::f32_to_bf16x2(e.v[6] * scale, e.v[7] * scale));
  }
  return make_uint4(
      sm90::f32_to_f16x2(e.v[0] * scale, e.v[1] * scale), sm90::f32_to_f16x2(e.v[2] * scale, e.v[3] * scale),
      sm90::f32_to_f16x2(e.v[4] * scale, e.v[5] * scale), sm90::f32_to_f16x2(e.v[6] * scale, e.v[7] * scale));
}

/// kNormed: with a norm.
template <bool kNormed>
__device__ __forceinline__ void stage(const HopperStageArgs& args) {
  __shared__ std::uint32_t of_warps[kStageThreads / 32];
  __shared__ float squares_of_warps[kNormed ? kStageThreads / 32 : 1];
  // The next kernel may start once this one has the data of all before it, so that it can ask for weights at
  // once.
  sm90::dependency_wait();
  sm90::dependency_launch();
  const std::uint32_t token = blockIdx.x;
  if (token == 0) {
    for (std::uint32_t i = args.m + threadIdx.x; i < args.scale_count; i += kStageThreads)
      args.scales.ptr[i] = 0.0f;
  }
  const std::uint32_t runs = args.planes * 8;
  uint4* const out = reinterpret_cast<uint4*>(args.rows.ptr) + std::uint64_t(token) * runs;
  const std::int64_t row = std::int64_t(token) * args.x_stride;
  const std::uint32_t element_bytes = args.x_type == quant::kElementF32 ? 4 : 2;
  const bool wide =
      (reinterpret_cast<std::uintptr_t>(args.x.ptr) + std::uint64_t(row) * element_bytes) % 16 == 0;
  float squares = 0.0f;
  // Of a run that is not held: x once more.
  auto again = [&](std::uint32_t run, bool counts) {
    Eight e = load8<kNormed>(args, row, run * 8, wide);
    if constexpr (kNormed) {
      if (counts) squares = add_squares(e, squares);
      multiply(e, load_norm8(args, run * 8));
    }
    return e;
  };
  Eight held[kHeld];
  std::uint32_t bits = 0;
#pragma unroll
  for (std::uint32_t i = 0; i < kHeld; ++i) {
    const std::uint32_t run = threadIdx.x + i * kStageThreads;
    if (run < runs) held[i] = load8<kNormed>(args, row, run * 8, wide);
  }
#pragma unroll
  for (std::uint32_t i = 0; i < kHeld; ++i) {
    const std::uint32_t run = threadIdx.x + i * kStageThreads;
    if (run >= runs) continue;
    if constexpr (kNormed) {
      const Eight weights = load_norm8(args, run * 8);
      squares = add_squares(held[i], squares);
      multiply(held[i], weights);
    }
    bits = largest(held[i], bits);
  }
  for (std::uint32_t run = threadIdx.x + kHeld * kStageThreads; run < runs; run += kStageThreads) {
    bits = largest(again(run, true), bits);
  }
  bits = __reduce_max_sync(~0u, bits);
  if constexpr (kNormed) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(~0u, squares, mask);
  }
  if (threadIdx.x % 32 == 0) {
    of_warps[threadIdx.x / 32] = bits;
    if constexpr (kNormed) squares_of_warps[threadIdx.x / 32] = squares;
  }
  __syncthreads();
  bits = __reduce_max_sync(~0u, of_warps[threadIdx.x % (kStageThreads / 32)]);

  // The power that brings the largest magnitude into [2^12, 2^13), as a biased exponent; both it and its
  // inverse are normal.
  const std::uint32_t exponent = bits >> 23;
  std::uint32_t power = 127;
  if (exponent < 255) power = 266 - exponent < 253 ? 266 - exponent : 253;
  const float scale = __uint_as_float(power << 23);
  const bool is_bf16 = args.rows_type == quant::kElementBf16;
#pragma unroll
  for (std::uint32_t i = 0; i < kHeld; ++i) {
    const std::uint32_t run = threadIdx.x + i * kStageThreads;
    if (run < runs) out[run] = halves(held[i], scale, is_bf16);
  }
  for (std::uint32_t run = threadIdx.x + kHeld * kStageThreads; run < runs; run += kStageThreads)
    out[run] = halves(again(run, false), scale, is_bf16);
  if (threadIdx.x == 0) {
    float back = __uint_as_float((254 - power) << 23);
    if constexpr (kNormed) {
      float sum = 0.0f;
#pragma unroll
      for (std::uint32_t warp = 0; warp < kStageThreads / 32; ++warp) sum += squares_of_warps[warp];
      back *= 1.0f / sqrtf(sum / static_cast<float>(args.k) + args.norm_eps);
    }
    args.scales.ptr[token] = back;
  }
}
#endif

}  // namespace

__global__ void __launch_bounds__(kStageThreads, 2)
    matmul_hopper_stage(const __grid_constant__ HopperStageArgs args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  stage<false>(args);
#endif
}
__global__ void __launch_bounds__(kStageThreads, 2)
    matmul_hopper_stage_normed(const __grid_constant__ HopperStageArgs args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  stage<true>(args);
#endif
}

}  // namespace mlxn::tile

namespace mlxn::cuda {
namespace {
constexpr unsigned kWarpsShared = tile::kStageThreads / 32 * sizeof(std::uint32_t);
const KernelEntry kEntries[] = {
    {"matmul_hopper_stage", reinterpret_cast<const void*>(&tile::matmul_hopper_stage),
     sizeof(ops::HopperStageArgs), kWarpsShared, tile::kStageThreads},
    {"matmul_hopper_stage_normed", reinterpret_cast<const void*>(&tile::matmul_hopper_stage_normed),
     sizeof(ops::HopperStageArgs), 2 * kWarpsShared, tile::kStageThreads}};
}  // namespace
extern const KernelTable cuda_hopper_stage;
const KernelTable cuda_hopper_stage = {kEntries, 2};
}  // namespace mlxn::cuda
