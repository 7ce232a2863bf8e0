// y[m, n] = x[m, k] * w[n, k]^T for up to four rows of x, w in records (quant/records.h), on Hopper.
//
// Bound: reading the weights once. An SM needs about 36 KB of copies in flight all the time; everything else
// has to hide behind that. Reached on an H200 with x in f32 and one row, of the read rate: q4_0 78 % at n
// 4096, k 14336 and 82 % at n 14336, k 4096; q8_0 90 and 92 %; q5_K 78 and 84 %; mxfp4 74 and 79 %. The rest
// is where one kernel follows another, since a block leaves no room for the next one's: by clocks read in the
// kernel (mxfp4), from a block's begin 0.4 us until the first weights are asked for, 1.1 until x may be read,
// 1.3 and 1.0 more until it is ready, 0.4 from the last product to the end, and then as much again and more
// until the next block begins; and, for types that are more work to unpack, instructions: of a warp per unit
// 46 (q4_0) to 86 (mxfp4) in the loop, and about 100 per tile and stage.
//
// A block owns `tiles_per_block` tiles of 16 rows of w. Where k is large, two blocks of a cluster own twice
// as many together and half of k each, so that each makes half of x ready; the second sends its sums to the
// first. Roles of a block's warps:
//   kWarps math warps   turn x into their operand form once, then multiply; a barrier for every 16 units of x
//                       says that they are ready. They are two or four teams, which take stages by turns; of
//                       a stage, a warp takes every n-th unit (16 rows x 128 k), n the warps of a team
//   1 copying warp      fills a ring of stages, one bulk copy of records (11 to 27 KB) each,
//                       `in_flight` at a time
//   1 summing warp      adds the math warps' parts of a finished tile, and does what follows: the norm's
//                       factor, the gate, the residual
// In a math warp lane 4 g + t has rows g and g + 8 of the tile, and of every 16 k those that the records give
// it; of the sums, those of rows g and g + 8 with one row of x and one block of 32 k.
//
// Programmatic launch: the ring's first `prefetch` stages are requested before the wait for the kernel
// before, and before anything else; the others after it: more in front takes bandwidth from that kernel's last
// blocks and the way from x. So the records must not be what a kernel just before writes.
#pragma once

#include <cstdint>

#include "cuda_blocks/cluster.cuh"
#include "cuda_blocks/ptx.cuh"
#include "ops/matmul/hopper_vector.h"
#include "ops/matmul/hopper_vector_copy.cuh"
#include "ops/matmul/hopper_vector_finish.cuh"
#include "ops/matmul/hopper_vector_math.cuh"
#include "ops/matmul/hopper_vector_shape.cuh"
#include "ops/matmul/hopper_vector_x.cuh"

namespace mlxn::sm90 {

template <class F, int kM>
__device__ __forceinline__ void vector_block(const HopperVectorArgs& args, std::uint8_t* memory) {
  using Shape = VectorShape<F, kM>;
  // All others wait for the first requests: what they do before x would take the better part of the issue slots.
  if (threadIdx.x / 32 == kWarps) {
    if (elect_lane()) {
      vector_copy_first<Shape>(args, vector_part(args), memory);
      dependency_launch();
    }
    __syncwarp();
  }
  __syncthreads();
  const std::uint32_t warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const Part part = vector_part(args);
  const bool is_copying = warp == kWarps && elect_lane();
  const Barriers barriers(args, memory);
  if (warp < kWarps && elect_lane()) barriers.init(args, part, warp, kWarps, Shape::kTeamWarps, kM);
  if (warp == kWarps + 1) {  // no outliers yet
    const std::uint32_t words = (args.at.partial - args.at.lows) / 4;
#pragma unroll 1
    for (std::uint32_t i = lane; i < words; i += 32)
      reinterpret_cast<std::uint32_t*>(memory + args.at.lows)[i] = 0;
  }
  // What does not depend on x.
  const Items<Shape> items(args, part, threadIdx.x, memory);
  VectorCopy<Shape> copy(args, part, barriers, memory);
  __syncthreads();
  if (args.parts > 1) cluster_arrive();
  dependency_wait();
  if (args.parts > 1) cluster_wait();

  if (warp < kWarps) {
    vector_stage_x<Shape>(args, part, warp, items, barriers, memory);
    if (F::kHalves == 1 || warp % 2 == 0)
      vector_multiply<Shape, 0>(args, memory, part, warp, barriers);
    else
      vector_multiply<Shape, F::kHalves - 1>(args, memory, part, warp, barriers);
  } else if (warp == kWarps) {
    if (is_copying) copy.run();
  } else {
    vector_finish<Shape>(args, memory, part, barriers);
  }
}

#if defined(__CUDACC__)
/// Other devices than Hopper have the kernel's name only.
template <class F, int kM>
__global__ void __launch_bounds__(ops::kHopperVectorThreads, 1)
    hopper_vector(const __grid_constant__ HopperVectorArgs args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  extern __shared__ __align__(1024) std::uint8_t shared[];
  vector_block<F, kM>(args, shared);
#else
  static_cast<void>(args);
#endif
}
#endif

}  // namespace mlxn::sm90
