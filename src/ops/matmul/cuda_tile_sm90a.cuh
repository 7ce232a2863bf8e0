// y[m, n] = x[m, k] * w[n, k]^T on Hopper with warpgroup matrix instructions, w in records (quant/records.h)
// or dense in rows, x in rows of f16 or bf16: the caller's own, or what HopperStageArgs makes of them. The
// rows of w are the instruction's rows, the tokens its columns.
//
// Bound: up to 64 tokens by the instructions of unpacking and what a warp waits between them, the floor of matrix
// instructions that take A from registers (32 cycles for up to 64 tokens) beneath; reading the weights is the floor
// of all (dense weights: the bound). From 128 tokens on by the tensor cores, at thousands of tokens by the clock that
// the power limit leaves. Measured on an H200, n 4096, k 14336, x in f16 (docs/benchmarks.md): q4_0 14.7 us at 32
// tokens (50 % of the read rate), 17.9 at 64 and 26.1 at 128, q4_K 13.4 at 16 and 20.3 at 64; at 512 q4_0 737
// TFLOP/s, f16 697; at 4096, by turns with cuBLAS's f16, 1.01 and 1.00 of its rate, with y in f16 1.00 and 1.00 (n 14336,
// k 4096: 0.99 and 0.99, 0.98 and 0.98, as nothing is multiplied while a tile is stored and the next one begins).
//
// A block computes 64 * row_groups rows x `tokens` tokens. Of warpgroup 0 one thread copies weights and one
// copies x into two rings of shared memory (into one, of both, for cuda_tile_few_sm90a.cuh); the others each
// hold 64 rows x tokens sums. B is x in shared memory. A of records: a consumer warp takes a half record of
// 16 rows x 128 k to registers and makes the operand from it (cuda_tile_formats_sm90a.cuh): two sets of four
// k16 fragments, one being unpacked while the matrix instructions read the other; when both are made, all
// loads have ended, and it frees the stage. bf16 that becomes f16 goes the same way from the 128-byte swizzle
// that tensor copies leave; other dense weights are read from there by the instructions themselves, which
// free the stage when they have ended.
//
// Of types with super-blocks and few tokens (up to 32 with minimums, else 64), sums are kept by record
// (Shape::by_record): the operand is whole numbers, scale times code, which cost one multiplication a pair;
// the super-block's d is multiplied to the sums of a record, a few for each thread, and minimums are one more
// instruction per half record, against sums of x over 16 k that come with each stage of x. For more tokens
// that costs more than it saves, and there are no registers for more sums; weights are made whole in the
// operand.
//
// Of few tokens (up to 64 without super-blocks, 32 of codes of 8 bits, 32 or with minimums 16 where sums are by record) two
// groups of consumers take a block's stages, or records, by turns (Shape::k_groups), four warps a scheduler; the second
// hands its sums to the first at the end. That each counts its stages in uniform registers (below) makes
// the difference: 20 to 30 instructions of 190 per half record.
//
// What a block does with k is its Form. Sums over parts of k go through a workspace; the block that comes
// last adds them in the order of k, so that the result does not depend on time. Where sums are many, parts
// are two and two in clusters (finish_paired), each of which first gets the other's sums of half of the
// tokens. No block waits for another one but its cluster's neighbour. Ring positions are counters of one
// plain loop, so that the compiler keeps matrix descriptors in uniform registers: moving them there costs
// more than the matrix instructions of few tokens.
#pragma once

#include <cstdint>

#include "cuda_blocks/cluster.cuh"
#include "cuda_blocks/pipeline.cuh"
#include "ops/matmul/cuda_tile_config_sm90a.cuh"
#include "ops/matmul/cuda_tile_copy_sm90a.cuh"
#include "ops/matmul/cuda_tile_few_sm90a.cuh"
#include "ops/matmul/cuda_tile_multiply_sm90a.cuh"
#include "ops/matmul/cuda_tile_store_sm90a.cuh"

namespace mlxn::tile {

template <class C, int kGroup>
__device__ __forceinline__ void consume(const HopperTileArgs& args, std::uint32_t shared, float4* memory,
                                        sm90::StageBarriers<C::kXStages> x_ring,
                                        sm90::StageBarriers<C::kWStages> w_ring) {
  Place me;
  me.lane = threadIdx.x % 32;
  me.thread = threadIdx.x - 128 - kGroup * C::kRowThreads;
  me.row = me.thread / 32 * 16 + me.lane / 4;
  me.token = me.lane % 4 * 2;
  // Groups take stages by turns, or records of two.
  constexpr std::uint32_t kFirst = C::kByRecord ? 2 * kGroup : kGroup;
  sm90::RingPosition x_at{kFirst, 0};
  sm90::RingPosition w_at{kFirst, 0};
  for_each_item<C>(args, [&](const Item& item) {
    float sums[C::kSums];
    if constexpr (!C::kSetsSums) clear(sums);
    if constexpr (C::kIsFew) {
      multiply_few<C, kGroup>(sums, args, shared, reinterpret_cast<const unsigned char*>(memory), w_ring,
                              shared + C::kSummed, item, me);
    } else if constexpr (C::kByRecord) {
      multiply_by_record<C, kGroup>(sums, args, shared, x_ring, w_ring, x_at, w_at, item, me);
    } else if constexpr (!C::kIsDense) {
      multiply<C, kGroup>(sums, args, shared, x_ring, w_ring, x_at, w_at, item, me);
    } else if constexpr (C::Format::kOperand == DenseOperand::to_f16) {
      multiply_to_f16<C>(sums, args, shared, x_ring, w_ring, x_at, w_at, item, me);
    } else {
      multiply_shared<C>(sums, shared, x_ring, w_ring, x_at, w_at, item, me);
    }
    if constexpr (C::kKGroups == 2) {
      const sm90::Barrier all_read = shared + C::kExchange, left = all_read + 8;
      sm90::barrier_arrive(all_read);
      if constexpr (kGroup == 1) {
        sm90::barrier_wait(all_read, 0);
#pragma unroll
        for (int quad = 0; quad < C::kSums / 4; ++quad)
          memory[quad * C::kRowThreads + me.thread] = quad_of(sums, quad);
        sm90::barrier_arrive(left);
      }
      if constexpr (kGroup == 0) {
        sm90::barrier_wait(left, 0);
#pragma unroll
        for (int quad = 0; quad < C::kSums / 4; ++quad) {
          const float4 v = memory[quad * C::kRowThreads + me.thread];
          sums[4 * quad] += v.x;
          sums[4 * quad + 1] += v.y;
          sums[4 * quad + 2] += v.z;
          sums[4 * quad + 3] += v.w;
        }
        sm90::named_barrier(2, C::kRowThreads);  // before the flag of finish_part goes where the sums were
      }
    }
    if (kGroup == 1 && is_paired<C>(args)) {
      sm90::cluster_sync();
      sm90::cluster_sync();
    }
    if constexpr (kGroup == 0) {
      sm90::dependency_wait();  // the kernel before may still read or write y and the workspace
      const std::uint32_t row = item.row_tile * C::kRows + me.row;
      const std::uint32_t token = item.token_tile * C::kTokens + me.token;
      if (is_fused(args)) {
        finish_fused<C>(sums, args, item, me, shared, memory);
      } else if constexpr (C::kForm == Form::pair) {
        finish_pair<C>(sums, args, row, token, me, shared, memory);
      } else if constexpr (C::kForm == Form::parts) {
        if (gridDim.z == 1) {
          store_tile<C>(sums, args, row, token);
          return;
        }
        if constexpr (C::kCanPair) {
          if (args.paired != 0) {
            finish_paired<C>(sums, args, row, token, me, shared, memory);
            return;
          }
        }
        finish_part<C>(sums, args, row, token, me, reinterpret_cast<std::uint32_t*>(memory));
      } else {
        store_tile<C>(sums, args, row, token);
      }
    }
  });
}

template <class C>
__device__ __forceinline__ void tile_matmul(const HopperTileArgs& args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  extern __shared__ __align__(1024) unsigned char memory[];
  const std::uint32_t shared = sm90::shared_address(memory);
  const sm90::StageBarriers<C::kXStages> x_ring{shared + (C::kIsFew ? C::kWBarriers : C::kXBarriers)};
  const sm90::StageBarriers<C::kWStages> w_ring{shared + C::kWBarriers};
  if (threadIdx.x == 0) {
    // The swizzle and the descriptors count from multiples of 1024.
    if ((shared & 0xFFFFFFu) != kSharedBase) __trap();
    if constexpr (!C::kIsFew) x_ring.init(4 * C::kShape.row_groups);
    w_ring.init(C::kWReleases, C::kIsFew ? 2 : 1);
    if constexpr (C::kHasSums) {
      for (std::uint32_t slot = 0; slot < C::kXStages; ++slot)
        sm90::barrier_init(shared + C::kSummed + slot * 8, 32);
      sm90::barrier_init_fence();
    }
    if constexpr (C::kKGroups == 2) {
      sm90::barrier_init(shared + C::kExchange, 2 * C::kRowThreads);
      sm90::barrier_init(shared + C::kExchange + 8, C::kRowThreads);
    }
  }
  if constexpr (C::kHasCluster)
    sm90::cluster_sync();
  else
    __syncthreads();
  sm90::dependency_launch();
  if (threadIdx.x < 128) {
    sm90::give_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) copy_weights<C>(args, shared, w_ring);
    if (threadIdx.x == 32) copy_x<C>(args, shared, x_ring);
    if constexpr (C::kHasSums) {
      const std::uint32_t warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
      if (warp >= kFirstSumWarp && warp < kFirstSumWarp + C::kSumWarps)
        for_each_item<C>(args, [&](const Item& item) {
          sum_x<C>(shared, x_ring, shared + C::kSummed, item.end - item.begin, warp - kFirstSumWarp);
        });
    }
    __syncwarp();
    if (C::kForm == Form::pair || is_paired<C>(args)) {
      sm90::cluster_sync();
      sm90::cluster_sync();
    }
  } else {
    sm90::take_registers<C::kConsumerRegisters>();
    float4* exchange = reinterpret_cast<float4*>(memory);
    if constexpr (C::kShape.look_up != 0) make_table<C>(shared);
    if constexpr (C::kKGroups == 1) {
      consume<C, 0>(args, shared, exchange, x_ring, w_ring);
    } else if (__shfl_sync(~0u, threadIdx.x / 128, 0) <= C::kShape.row_groups) {
      // The same in all lanes, as the compiler now knows: a group's stages are counted in uniform registers.
      consume<C, 0>(args, shared, exchange, x_ring, w_ring);
    } else {
      consume<C, 1>(args, shared, exchange, x_ring, w_ring);
    }
  }
  // The roles meet again, for ptxas, which serialises the matrix instructions (C7512) of a branch that holds
  // a trap and leads nowhere. Of a cluster no block ends while the other may still write to it.
  if constexpr (C::kHasCluster)
    sm90::cluster_sync();
  else
    __syncthreads();
#endif
}

}  // namespace mlxn::tile
