// Of cuda_tile_sm90a.cuh: the producers. One thread copies weights, one copies x, each as far ahead as its ring has
// stages; for types that add something to scale * code two warps make sums of x.
#pragma once

#include <cstdint>

#include "cuda_blocks/bulk.cuh"
#include "cuda_blocks/mma.cuh"
#include "ops/matmul/cuda_tile_config_sm90a.cuh"

namespace mlxn::tile {

template <class C>
__device__ __forceinline__ void copy_weights(const HopperTileArgs& args, std::uint32_t shared,
                                             sm90::StageBarriers<C::kWStages> ring) {
  using F = typename C::Format;
  sm90::map_prefetch(&args.w);
  sm90::RingPosition at;
  std::uint32_t sent = 0;
  const int rows = args.gate_rows == 0 ? C::kRows : C::kRows / 2;  // of each plane of the map
  for_each_item<C>(args, [&](const Item& item) {
#pragma unroll 1
    for (std::uint32_t step = item.begin; step < item.end; ++step) {
      if (sent++ == args.prefetch)
        sm90::dependency_wait();  // more copies would take bandwidth from the kernel before
      const std::uint32_t full = ring.full(at.slot);
      sm90::barrier_wait(ring.empty(at.slot), at.parity ^ 1);
      sm90::barrier_arrive_expect(full, C::kWBytes);
      const std::uint32_t to = shared + C::kWOffset + at.slot * C::kWBytes;
      if constexpr (C::kIsDense) {
#pragma unroll
        for (int plane = 0; plane < 2; ++plane) {
          sm90::map_load(to + plane * C::kWPlaneBytes, &args.w, int(step) * 128 + plane * 64,
                         int(item.row_tile) * rows, 0, full);
        }
      } else {
        const int column = F::kSuper ? int(step / 2) * C::kRecordColumns + int(step % 2 * (F::kCodeBytes / 8))
                                     : int(step) * C::kRecordColumns;
#pragma unroll
        for (int piece = 0; piece < C::kCopies; ++piece) {
          sm90::map_load(to + piece * (C::kWBytes / C::kCopies), &args.w,
                         column + piece * int(C::kPieceBytes / 8), int(item.row_tile) * (rows / 16), 0, full);
        }
      }
      at.advance(C::kWStages);
    }
  });
}

/// A stage is one copy, or one for each half of its tokens: [plane of 64 k][token][128 bytes in the swizzle].
/// Tokens from m on and planes beyond k arrive as zeros.
template <class C>
__device__ __forceinline__ void copy_x(const HopperTileArgs& args, std::uint32_t shared,
                                       sm90::StageBarriers<C::kXStages> ring) {
  sm90::map_prefetch(&args.x);
  sm90::dependency_wait();
  sm90::RingPosition at;
  for_each_item<C>(args, [&](const Item& item) {
    const int token = int(item.token_tile) * C::kTokens;
    if (args.x_scales.ptr != nullptr) {
#pragma unroll
      for (int i = 0; i < C::kTokens; i += 32) load_scale(args.x_scales.ptr + token + i);
    }
#pragma unroll 1
    for (int plane = int(item.begin) * 2; plane < int(item.end) * 2; plane += C::kXPlanes) {
      const std::uint32_t full = ring.full(at.slot);
      const std::uint32_t to = shared + at.slot * C::kXBytes;
      sm90::barrier_wait(ring.empty(at.slot), at.parity ^ 1);
      sm90::barrier_arrive_expect(full, C::kXBytes);
      if constexpr (C::kForm == Form::pair) {
        // The half of the tokens that this block finishes comes first.
        constexpr int kHalf = C::kTokens / 2;
        const int own = int(blockIdx.x & 1) * kHalf;
        sm90::map_load(to, &args.x, 0, token + own, plane, full);
        sm90::map_load(to + C::kXBytes / 2, &args.x, 0, token + kHalf - own, plane, full);
      } else {
        sm90::map_load(to, &args.x, 0, token, plane, full);
      }
      at.advance(C::kXStages);
    }
  });
}

/// The producers' warp that begins the sums of x, of kSumWarps.
constexpr std::uint32_t kFirstSumWarp = 2;
/// By warp `first` of kSumWarps, which take stages of x by turns: the sums of a stage's f16 numbers over 16 k, times
/// 2^-4, as f16 and what rounding took from them: [2][tokens][8 groups]. Tokens are the instruction's rows; a
/// matrix of ones in column s alone adds group s into column s of the result. Of 8 tokens, the other eight rows
/// are the same tokens' k from 64 on.
template <class C>
__device__ __forceinline__ void sum_x(std::uint32_t shared, sm90::StageBarriers<C::kXStages> ring, std::uint32_t summed,
                                      std::uint32_t stages, std::uint32_t first) {
  constexpr bool kIsEight = C::kTokens == 8;
  constexpr std::uint32_t kSteps = kIsEight ? 4 : 8;  // instructions
  const std::uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  // Four matrices: rows 0..7 and 8..15 of k 0..7, then of k 8..15.
  const std::uint32_t token = kIsEight ? lane % 8 : lane % 16, piece = (lane / 16 ^ lane) & 7;
  const std::uint32_t row = shared + token * 128 + (kIsEight && lane / 8 % 2 != 0 ? C::kPlaneBytes : 0);
  const std::uint32_t out = shared + C::kSumOffset + g * 16 + t * 4;
  sm90::RingPosition at{first, 0};
#pragma unroll 1
  for (std::uint32_t i = first; i < stages; i += C::kSumWarps) {
    sm90::barrier_wait(ring.full(at.slot), at.parity);
#pragma unroll 1
    for (std::uint32_t tokens = 0; tokens < C::kTokens; tokens += 16) {
      const std::uint32_t x = row + at.slot * C::kXBytes + tokens * 128;
      float even[4], odd[4];
#pragma unroll
      for (std::uint32_t step = 0; step < kSteps; ++step) {
        std::uint32_t a[4];
        sm90::load_matrix_x4(a, x + (piece ^ step % 4 * 2) * 16 + step / 4 * C::kPlaneBytes);
        const std::uint32_t ones = g == step ? 0x2C002C00u : 0;
        float(&sums)[4] = step % 2 == 0 ? even : odd;
        if (step < 2)
          sm90::mma_f16_first(sums, a[0], a[1], a[2], a[3], ones, ones);
        else
          sm90::mma_f16(sums, a[0], a[1], a[2], a[3], ones, ones);
      }
      // Of token g groups 2t and 2t + 1, then of token g + 8, or groups 2t + 4 and 2t + 5.
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const float sum0 = even[2 * upper] + odd[2 * upper], sum1 = even[2 * upper + 1] + odd[2 * upper + 1];
        const std::uint32_t whole = sm90::f32_to_f16x2(sum0, sum1);
        const float2 kept = sm90::f16x2_to_f32(whole);
        const std::uint32_t to =
            out + at.slot * C::kSumBytes + tokens * 16 + static_cast<std::uint32_t>(upper) * (kIsEight ? 8 : 128);
        if (kIsEight && t >= 2) continue;  // columns that no step has
        sm90::store_u32(to, whole);
        sm90::store_u32(to + C::kTokens * 16, sm90::f32_to_f16x2(sum0 - kept.x, sum1 - kept.y));
      }
    }
    // Matrix instructions of warpgroups read them as copies do.
    if constexpr (!C::kIsFew) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    sm90::barrier_arrive(summed + at.slot * 8);  // every lane for what it wrote
#pragma unroll
    for (int turn = 0; turn < C::kSumWarps; ++turn) at.advance(C::kXStages);
  }
}

}  // namespace mlxn::tile
