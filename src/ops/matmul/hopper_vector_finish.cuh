// The end of Hopper's few-row kernel: sums of the warps, and of two blocks that share k, to y; the norm's
// factor, the gate and the residual.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/cluster.cuh"
#include "cuda_blocks/ptx.cuh"
#include "ops/matmul/hopper_vector_shape.cuh"
#include "ops/matmul/hopper_vector_x.cuh"

namespace mlxn::sm90 {

/// The activation of silu_mul or gelu_mul.
__device__ __forceinline__ float vector_gate(float gate, std::uint32_t activation) {
  // (1 + tanh z) / 2 = 1 / (1 + e^-2z)
  const float z = activation == ops::kHopperVectorSilu
                      ? gate
                      : (gate + gate * gate * gate * 0.044715f) * (2.0f * 0.7978845608028654f);
  const float e = expf(-fabsf(z));
  return (z < 0 ? gate * e : gate) / (1.0f + e);
}

__device__ __forceinline__ float vector_load_residual(const HopperVectorArgs& args, std::uint32_t row,
                                                      std::uint32_t column) {
  const std::int64_t at = row * args.residual_stride + column;
  if (args.y_type == quant::kElementF32) return __ldcg(static_cast<const float*>(args.residual.ptr) + at);
  const std::uint32_t bits = __ldcg(static_cast<const std::uint16_t*>(args.residual.ptr) + at);
  return X16::pair(bits, args.y_type == quant::kElementBf16).x;
}

__device__ __forceinline__ void vector_store_y(const HopperVectorArgs& args, std::uint32_t row,
                                               std::uint32_t column, float value) {
  const std::int64_t at = row * args.y_stride + column;
  if (args.y_type == quant::kElementF32)
    static_cast<float*>(args.y.ptr)[at] = value;
  else
    static_cast<std::uint16_t*>(args.y.ptr)[at] = static_cast<std::uint16_t>(
        args.y_type == quant::kElementF16 ? f32_to_f16x2(value, 0) : f32_to_bf16x2(value, 0));
}

/// The warp that adds up what the math warps have of a tile, and does what follows.
template <class Shape>
__device__ __forceinline__ void vector_finish(const HopperVectorArgs& args, std::uint8_t* memory,
                                              const Part& part, const Barriers& barriers) {
  constexpr int kM = Shape::kRows, kTeams = Shape::kTeams, kTeamWarps = Shape::kTeamWarps;
  constexpr int kMine = (kM * 16 + 31) / 32;  // sums of a lane
  const std::uint32_t lane = threadIdx.x % 32;
  const float* squares = reinterpret_cast<const float*>(memory + args.at.sums);
  float* other = reinterpret_cast<float*>(memory + args.at.other);
  float* other_squares = other + kPartials * kM * 16;
  const bool is_normed = args.norm.ptr != nullptr;
  float gates[kMine] = {};  // of the tile before
  float factors[kMine];
  for (std::uint32_t i = 0; i < part.n_tiles; ++i) {
    const std::uint32_t buffer = i % kPartials, parity = i / kPartials & 1;
    const float* of_warps =
        reinterpret_cast<const float*>(memory + args.at.partial) + buffer * kWarps * kM * 16;
    const bool is_first_part = part.rank == 0, is_gate = args.half_tiles != 0 && i % 2 == 0;
    const std::uint32_t at = part.first_tile + i, first_column = (args.half_tiles == 0 ? at : at / 2) * 16;
    float added[kMine] = {};
    if (args.residual.ptr != nullptr && is_first_part && !is_gate) {
#pragma unroll
      for (int p = 0; p < kMine; ++p) {
        const std::uint32_t j = lane + 32 * p, column = first_column + j % 16;
        if (j < args.m * 16 && column < args.n) added[p] = vector_load_residual(args, j / 16, column);
      }
    }
    if (args.parts > 1 && is_first_part && lane == 0)
      barrier_arrive_expect(barriers.other_full + 8 * buffer, kM * 64 + (i == 0 && is_normed ? 16 : 0));

    barrier_wait(barriers.partial_full + 8 * buffer, parity);
    float sums[kMine];
#pragma unroll
    for (int p = 0; p < kMine; ++p) {
      const std::uint32_t j = lane + 32 * p;
      sums[p] = 0;
      constexpr int kStep = kM == 1 ? 2 : 1;  // of one row, half of the warps' for each half of the lanes
#pragma unroll
      for (int team = 0; team < kTeams; ++team) {
        if (team >= static_cast<int>(part.stages)) continue;  // had none of the tile
#pragma unroll
        for (int w = team * kTeamWarps; w < (team + 1) * kTeamWarps; w += kStep)
          sums[p] += of_warps[w * kM * 16 + j];
      }
      if constexpr (kM == 1) sums[p] += __shfl_xor_sync(0xffffffffu, sums[p], 16);
    }
    // Before anything is stored: an arrival waits for what was.
    barrier_arrive(barriers.partial_empty + 8 * buffer);

    if (!is_first_part) {  // sends them to the block that has the first part of k
      if (i >= kPartials) cluster_barrier_wait(barriers.other_empty + 8 * buffer, parity ^ 1);
      const Barrier to_barrier = cluster_address(barriers.other_full + 8 * buffer, 0);
#pragma unroll
      for (int p = 0; p < kMine; ++p) {
        const std::uint32_t j = lane + 32 * p;
        if (j < kM * 16)
          cluster_send(cluster_address(shared_address(other + buffer * kM * 16 + j), 0), to_barrier, sums[p]);
      }
      if (lane == 31 && i == 0 && is_normed) {
        float sum[4] = {};
#pragma unroll
        for (int row = 0; row < kM; ++row) sum[row] = vector_squares<Shape>(squares, row);
        cluster_send(cluster_address(shared_address(other_squares), 0), to_barrier, sum[0], sum[1], sum[2],
                     sum[3]);
      }
      continue;
    }
    if (args.parts > 1) {
      cluster_barrier_wait(barriers.other_full + 8 * buffer, parity);
#pragma unroll
      for (int p = 0; p < kMine; ++p)
        if (lane + 32 * p < kM * 16) sums[p] += other[buffer * kM * 16 + lane + 32 * p];
      if (i + kPartials < part.n_tiles) {  // the other block runs until it has this
        __syncwarp();
        if (lane == 0) cluster_arrive(barriers.other_empty + 8 * buffer, 1);
      }
    }
    if (i == 0) {
#pragma unroll
      for (int p = 0; p < kMine; ++p) {
        const std::uint32_t row = (lane + 32 * p) / 16;
        factors[p] = 1.0f;
        if (!is_normed || row >= kM) continue;
        const float sum = vector_squares<Shape>(squares, row) + (args.parts > 1 ? other_squares[row] : 0.0f);
        factors[p] = 1.0f / sqrtf(sum / static_cast<float>(args.k) + args.norm_eps);
      }
    }
#pragma unroll
    for (int p = 0; p < kMine; ++p) {
      const std::uint32_t j = lane + 32 * p, column = first_column + j % 16;
      if (j >= args.m * 16) continue;
      float sum = sums[p] * factors[p];
      if (is_gate) {
        gates[p] = vector_gate(sum, args.activation);
        continue;
      }
      if (args.half_tiles != 0) sum *= gates[p];
      if (column < args.n) vector_store_y(args, j / 16, column, sum + added[p]);
    }
  }
}

}  // namespace mlxn::sm90
