#pragma once
/// y[m, n] = x[m, k] * W[n, k]^T on sm_90a with warpgroup matrix instructions, the rows of W as the matrix
/// instruction's rows and the tokens as its columns.
///
/// What bounds it: tokens <= 64 the latency from a landed stage over unpacking to the matrix instructions,
/// with weights from memory (7.4 us for 33 MB) and the tensor cores (7.3 us at 64) as floors; from 128 tokens
/// the tensor cores, at 4096 with the clock that the power limit leaves.
///
/// One kernel template. A block computes (64 * kRowGroups) rows x kTokens tokens. Warpgroup 0 is the
/// producer: one thread starts tensor copies of weights and x into a ring of stages. Each other warpgroup
/// holds 64 rows x kTokens sums. With kSplitK2 the two halves of each stage's k go to different warpgroups,
/// whose sums meet in shared memory at the end.
///
/// Weights::q4_0: records of 16 rows x 128 k; each warp unpacks its record into A registers (two sets of four
/// k16 fragments), one group of four instructions runs while the next set is unpacked. Weights::f16: both
/// operands from shared memory, stages of 64 k.
///
/// Pair says what a cluster of two blocks shares: nothing (no cluster); the x tile of two neighbouring row
/// tiles, each block fetching half of it for both (multicast); or one tile, each block taking half of k, the
/// sums exchanged through distributed shared memory so that each block finishes half of the tokens
/// (halves_k).
///
/// With kStream the first `whole_tiles` tiles go to blocks as wholes; the k steps of the others, tile after
/// tile, are cut into gridDim equal ranges, one a block (split-K where a range is a part of one tile). Sums
/// over a part of a tile's k go to a workspace; when a block is through with its range it waits for the
/// others of those tiles and adds its slice of the sums in the order of k. All blocks must fit on the device
/// at once. The result depends on the grid, not on timing.

#include <cuda_fp16.h>

#include "cuda_blocks/pipeline.cuh"
#include "cuda_blocks/scheduler.cuh"
#include "cuda_blocks/tma.cuh"
#include "cuda_blocks/wgmma.cuh"
#include "records.cuh"

namespace mlxn::hopper {

namespace blocks = mlxn::sm90;

enum class Weights { q4_0, f16 };
enum class Pair { none, multicast, halves_k };

template <Weights kWeightsT, int kRowGroupsT, int kTokensT, int kStagesT, Pair kPairT = Pair::none,
          bool kStreamT = false, bool kSplitK2T = false, int kBlocksPerSmT = 1>
struct TileConfig {
  static constexpr Weights kWeights = kWeightsT;
  static constexpr int kRowGroups = kRowGroupsT;
  static constexpr int kTokens = kTokensT;
  static constexpr int kStages = kStagesT;
  static constexpr Pair kPair = kPairT;
  static constexpr bool kStream = kStreamT;
  static constexpr bool kSplitK2 = kSplitK2T;
  static constexpr int kBlocksPerSm = kBlocksPerSmT;

  static constexpr int kRows = 64 * kRowGroups;
  static constexpr int kStageK = kWeights == Weights::q4_0 ? 128 : 64;
  static constexpr int kPlanes = kStageK / 64;
  static constexpr uint32_t kPlaneBytes = kTokens * 128;  // 64 k of x, a 128-byte swizzled row per token
  static constexpr uint32_t kXBytes = kPlanes * kPlaneBytes;
  static constexpr uint32_t kWBytes = kWeights == Weights::q4_0 ? kRows / 16 * kRecordBytes : kRows * 128;
  static constexpr uint32_t kStageBytes = kXBytes + kWBytes;
  static constexpr uint32_t kWOffset = kStages * kXBytes;
  static constexpr uint32_t kRingOffset = kStages * kStageBytes;
  static constexpr uint32_t kSharedBytes = kRingOffset + blocks::StageBarriers<kStages>::kBytes;

  static constexpr int kGroups = kRowGroups * (kSplitK2 ? 2 : 1);  // consumer warpgroups
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kConsumers = 128 * kGroups;
  static constexpr int kRowThreads = 128 * kRowGroups;  // the threads that hold the block's sums at the end
  static constexpr int kSums = kTokens / 2;             // per thread
  static constexpr int kClusterBlocks = kPair == Pair::none ? 1 : 2;
  static constexpr int kXBoxTokens = kPair == Pair::none ? kTokens : kTokens / 2;

  // Registers are handed out to whole warpgroups: all start with the same share, the producer gives most
  // back.
  static constexpr int kStartRegisters = 65536 / (kThreads * kBlocksPerSm) / 8 * 8;
  static constexpr int kProducerRegisters = kTokens == 256 ? 24 : 32;
  static constexpr int kConsumerShare =
      (kStartRegisters * (kGroups + 1) - kProducerRegisters) / kGroups / 8 * 8;
  static constexpr int kConsumerRegisters = kConsumerShare > 240 ? 240 : kConsumerShare;

  static_assert(kTokens % 16 == 0 && kTokens <= 256 && kSharedBytes <= 232448);
  static_assert(kPlaneBytes % 1024 == 0 && kWBytes % 128 == 0);
  static_assert(kPair == Pair::none || (kTokens / 2 * 128 % 1024 == 0 && !kStream));
  static_assert(!kSplitK2 || (kWeights == Weights::q4_0 && kPair == Pair::none));
  // The exchange of sums reuses the stages' memory.
  static_assert(!kSplitK2 || kRowThreads * kSums * 4 <= kRingOffset);
  static_assert(kPair != Pair::halves_k || kRowThreads * kSums / 2 * 4 <= kRingOffset);
};

struct TileArgs {
  CUtensorMap x;  // [m, k] f16, box kXBoxTokens x 64, 128-byte swizzle
  CUtensorMap
      w;     // records: [n / 16, k / 128 * 144] of 8 bytes, box kRows / 16 x 144; f16: as x, box kRows x 64
  float* y;  // [m, n]
  float4* workspace;   // kStream: 2 * gridDim * kRowThreads * kSums floats
  unsigned* counters;  // kStream: two per tile, zero before the first launch and again after each launch
  int m;
  int n;
  int k;
  int whole_tiles;     // kStream
  int prefetch;        // stages of weights fetched before the wait for the previous kernel
  float row_scale[2];  // what the sums of rows g and g + 8 are multiplied by at the end
  __half2 d_scale[2];  // the powers of two that d is multiplied by, one after the other
  blocks::TileOrder order;
};

/// One work item: a tile and a range of its k steps.
struct TileItem {
  int tile;
  int row0;
  int token0;
  blocks::StepRange steps;

  __device__ __forceinline__ int count() const { return steps.end - steps.begin; }
};

/// The items of this block, in order; producer and consumers walk the same.
template <class C>
struct ItemWalk {
  int index;  // of the next whole tile, or of the next half tile or block of a pair
  int unit;   // kStream: the next step of all streamed tiles
  int unit_end;

  __device__ __forceinline__ explicit ItemWalk(const TileArgs& args) : index(blockIdx.x) {
    if constexpr (C::kStream) {
      const blocks::StepStream stream = step_stream(args);
      unit = stream.begin(blockIdx.x);
      unit_end = stream.begin(blockIdx.x + 1);
    }
  }

  static __device__ __forceinline__ blocks::StepStream step_stream(const TileArgs& args) {
    const int steps = args.k / C::kStageK;
    return {steps, args.order.count() - args.whole_tiles, int(gridDim.x)};
  }

  /// Leaves out the whole tiles.
  __device__ __forceinline__ void skip_whole(const TileArgs& args) { index = args.whole_tiles; }

  __device__ __forceinline__ bool next(const TileArgs& args, int rank, TileItem& item) {
    const int steps = args.k / C::kStageK;
    item.steps = {0, steps};
    blocks::TileOrder::Place place;
    if constexpr (C::kStream) {
      if (index < args.whole_tiles) {
        item.tile = index;
        index += gridDim.x;
      } else {
        if (unit >= unit_end) return false;
        const int streamed = unit / steps;
        item.tile = args.whole_tiles + streamed;
        item.steps.begin = unit - streamed * steps;
        const int end = item.steps.begin + unit_end - unit;
        item.steps.end = end < steps ? end : steps;
        unit += item.count();
      }
      place = args.order.at(item.tile);
    } else {
      constexpr int kShare = C::kPair == Pair::none ? 1 : 2;
      item.tile = index / kShare;
      if (item.tile >= args.order.count()) return false;
      index += gridDim.x;
      place = args.order.at(item.tile);
      if constexpr (C::kPair == Pair::multicast)
        place.row_tile = place.row_tile * 2 + rank;  // `order` counts pairs
      if constexpr (C::kPair == Pair::halves_k) item.steps = blocks::split_steps(steps, rank, 2);
    }
    item.row0 = place.row_tile * C::kRows;
    item.token0 = place.token_tile * C::kTokens;
    return true;
  }
};

template <class C>
__device__ __forceinline__ void load_weights(const TileArgs& args, uint32_t shared, uint32_t barrier,
                                             int stage, const TileItem& item, int step) {
  const uint32_t target = shared + C::kWOffset + stage * C::kWBytes;
  if constexpr (C::kWeights == Weights::q4_0) {
    blocks::tma::load(args.w, target, barrier, step * (kRecordBytes / 8), item.row0 / 16);
  } else {
    blocks::tma::load(args.w, target, barrier, step * 64, item.row0);
  }
}

template <class C>
__device__ __forceinline__ void load_x(const TileArgs& args, uint32_t shared, uint32_t barrier, int stage,
                                       const TileItem& item, int step, int rank) {
#pragma unroll
  for (int plane = 0; plane < C::kPlanes; ++plane) {
    const uint32_t target = shared + stage * C::kXBytes + plane * C::kPlaneBytes;
    const int column = step * C::kStageK + plane * 64;
    if constexpr (C::kPair == Pair::multicast) {
      blocks::tma::load_multicast(args.x, target + rank * (C::kPlaneBytes / 2), barrier, column,
                                  item.token0 + rank * (C::kTokens / 2), 3);
    } else if constexpr (C::kPair == Pair::halves_k) {
      // The half of the tokens that this block finishes comes first.
      const int own = rank * (C::kTokens / 2);
      blocks::tma::load(args.x, target, barrier, column, item.token0 + own);
      blocks::tma::load(args.x, target + C::kPlaneBytes / 2, barrier, column,
                        item.token0 + C::kTokens / 2 - own);
    } else {
      blocks::tma::load(args.x, target, barrier, column, item.token0);
    }
  }
}

/// The producer thread.
template <class C>
__device__ __forceinline__ void produce(const TileArgs& args, uint32_t shared,
                                        blocks::StageBarriers<C::kStages> ring, int rank) {
  blocks::tma::prefetch_map(args.x);
  blocks::tma::prefetch_map(args.w);
  int ahead = 0;  // stages of the first item whose weights are already under way
  TileItem item;
  if (ItemWalk<C>(args).next(args, rank, item)) {
    ahead = args.prefetch < C::kStages ? args.prefetch : C::kStages;
    ahead = ahead < item.count() ? ahead : item.count();
    for (int stage = 0; stage < ahead; ++stage) {
      blocks::barrier_arrive_expect(ring.full(stage), C::kStageBytes);
      load_weights<C>(args, shared, ring.full(stage), stage, item, item.steps.begin + stage);
    }
  }
  blocks::dependency_wait();
  blocks::RingPosition at;
  ItemWalk<C> walk(args);
  while (walk.next(args, rank, item)) {
    for (int step = item.steps.begin; step < item.steps.end; ++step) {
      const uint32_t full = ring.full(at.slot);
      if (ahead > 0) {
        --ahead;
      } else {
        if constexpr (C::kPair == Pair::multicast) {
          blocks::cluster_barrier_wait(ring.empty(at.slot), at.parity ^ 1);
        } else {
          blocks::barrier_wait(ring.empty(at.slot), at.parity ^ 1);
        }
        blocks::barrier_arrive_expect(full, C::kStageBytes);
        load_weights<C>(args, shared, full, at.slot, item, step);
      }
      load_x<C>(args, shared, full, at.slot, item, step, rank);
      at.advance(C::kStages);
    }
  }
}

/// One arrival per consumer warp frees a stage, in both blocks of the cluster where x is shared.
template <class C>
__device__ __forceinline__ void release(blocks::StageBarriers<C::kStages> ring, int stage, int lane) {
  if constexpr (C::kPair == Pair::multicast) {
    if (lane < 2) blocks::cluster_arrive(ring.empty(stage), lane);
  } else {
    if (lane == 0) blocks::barrier_arrive(ring.empty(stage));
  }
}

__device__ __forceinline__ uint4 load_shared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

__device__ __forceinline__ __half2 as_half2(uint32_t bits) {
  __half2 h;
  static_assert(sizeof h == 4);
  memcpy(&h, &bits, 4);
  return h;
}
__device__ __forceinline__ uint32_t as_bits(__half2 h) {
  uint32_t bits;
  memcpy(&bits, &h, 4);
  return bits;
}

/// One plane (64 k) of a record to four k16 fragments with the scales folded in.
///
/// A masked nibble q is the f16 subnormal q * 2^-24 (rows g, bits 0..3 of each half) or q * 2^-20 (rows g +
/// 8, bits 4..7). With D = d * 2^p (p near 20, see TileArgs::d_scale) one multiply-add gives D * 2^-24 * (q -
/// 8), rounded once; the power of two is undone on the sums.
__device__ __forceinline__ void unpack_plane(uint32_t (&a)[4][4], const uint4& quants, uint32_t d_low,
                                             uint32_t d_high, const TileArgs& args) {
  const __half2 low = __hmul2(__hmul2(as_half2(d_low), args.d_scale[0]), args.d_scale[1]);
  const __half2 high = __hmul2(__hmul2(as_half2(d_high), args.d_scale[0]), args.d_scale[1]);
  const __half2 low_8 = __hmul2(low, as_half2(0x80088008u));    // -8 * 2^-24
  const __half2 high_8 = __hmul2(high, as_half2(0x80808080u));  // -8 * 2^-20
  const uint32_t words[4] = {quants.x, quants.y, quants.z, quants.w};
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const bool second = step >= 2;  // the second block of 32 in this plane
    const __half2 dl = second ? __high2half2(low) : __low2half2(low);
    const __half2 dh = second ? __high2half2(high) : __low2half2(high);
    const __half2 ml = second ? __high2half2(low_8) : __low2half2(low_8);
    const __half2 mh = second ? __high2half2(high_8) : __low2half2(high_8);
    const uint32_t w = words[step];
    const uint32_t v = w >> 8;
    a[step][0] = as_bits(__hfma2(as_half2(w & 0x000F000Fu), dl, ml));
    a[step][1] = as_bits(__hfma2(as_half2(w & 0x00F000F0u), dh, mh));
    a[step][2] = as_bits(__hfma2(as_half2(v & 0x000F000Fu), dl, ml));
    a[step][3] = as_bits(__hfma2(as_half2(v & 0x00F000F0u), dh, mh));
  }
}

/// Starts the four instructions of one plane of x.
template <class C>
__device__ __forceinline__ void start_plane(float (&sums)[C::kSums], uint32_t (&a)[4][4], uint64_t x_plane) {
#pragma unroll
  for (int step = 0; step < 4; ++step) blocks::wgmma::pin(a[step]);
  blocks::wgmma::fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    blocks::wgmma::multiply<C::kTokens>(sums, a[step], blocks::wgmma::advance(x_plane, step * 32), 1);
  }
  blocks::wgmma::commit();
}

/// What a consumer thread knows of its place.
struct Lane {
  int lane;
  int thread;  // in the warpgroups that hold sums, row groups first
  int row_group;
  int half;   // kSplitK2: which plane of each stage
  int row;    // of sums[0] inside the block's tile
  int token;  // likewise
};

template <class C>
__device__ __forceinline__ void multiply_q4(float (&sums)[C::kSums], const TileArgs& args, uint32_t shared,
                                            blocks::StageBarriers<C::kStages> ring, blocks::RingPosition& at,
                                            int steps, const Lane& me) {
  const uint32_t record = shared + C::kWOffset + (me.thread / 32) * kRecordBytes;
  const uint32_t quants = record + me.lane * 16;
  const uint32_t scales = record + kRecordScales + (me.lane >> 2) * 16;
  const uint64_t x_tile = blocks::wgmma::swizzle128_descriptor(shared);
  uint32_t even[4][4];
  uint32_t odd[4][4];
  int before = 0;  // the stage that the running group still reads

  if constexpr (!C::kSplitK2) {
    // The next stage's weights are read while the last group of this one runs.
    uint4 q0;
    uint4 q1;
    uint4 d;
    auto read_stage = [&](std::uint32_t slot) {
      blocks::barrier_wait(ring.full(slot), at.parity);
      q0 = load_shared16(quants + slot * C::kWBytes);
      q1 = load_shared16(quants + slot * C::kWBytes + 512);
      d = load_shared16(scales + slot * C::kWBytes);
    };
    read_stage(at.slot);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      const std::uint32_t stage = at.slot;
      const uint64_t x = blocks::wgmma::advance(x_tile, stage * C::kXBytes);
      unpack_plane(even, q0, d.x, d.z, args);
      start_plane<C>(sums, even, x);
      blocks::wgmma::wait<1>();
      if (step > 0) release<C>(ring, before, me.lane);
      before = stage;
      unpack_plane(odd, q1, d.y, d.w, args);
      start_plane<C>(sums, odd, blocks::wgmma::advance(x, C::kPlaneBytes));
      at.advance(C::kStages);
      if (step + 1 < steps) read_stage(at.slot);
      blocks::wgmma::wait<1>();
    }
  } else {
    // This warpgroup's plane of two stages a turn; the host gives every block an even number of steps.
    const uint32_t plane = me.half * 512;
    const uint64_t x_half = blocks::wgmma::advance(x_tile, me.half * C::kPlaneBytes);
    blocks::barrier_wait(ring.full(at.slot), at.parity);
    uint4 q = load_shared16(quants + plane + at.slot * C::kWBytes);
    uint4 d = load_shared16(scales + at.slot * C::kWBytes);
#pragma unroll 1
    for (int step = 0; step < steps; step += 2) {
      const std::uint32_t stage = at.slot;
      unpack_plane(even, q, me.half ? d.y : d.x, me.half ? d.w : d.z, args);
      start_plane<C>(sums, even, blocks::wgmma::advance(x_half, stage * C::kXBytes));
      at.advance(C::kStages);
      blocks::barrier_wait(ring.full(at.slot), at.parity);
      q = load_shared16(quants + plane + at.slot * C::kWBytes);
      d = load_shared16(scales + at.slot * C::kWBytes);
      blocks::wgmma::wait<1>();
      if (step > 0) release<C>(ring, before, me.lane);
      before = at.slot;
      unpack_plane(odd, q, me.half ? d.y : d.x, me.half ? d.w : d.z, args);
      start_plane<C>(sums, odd, blocks::wgmma::advance(x_half, at.slot * C::kXBytes));
      at.advance(C::kStages);
      if (step + 2 < steps) {
        blocks::barrier_wait(ring.full(at.slot), at.parity);
        q = load_shared16(quants + plane + at.slot * C::kWBytes);
        d = load_shared16(scales + at.slot * C::kWBytes);
      }
      blocks::wgmma::wait<1>();
      release<C>(ring, stage, me.lane);
    }
  }
  blocks::wgmma::wait<0>();
  blocks::wgmma::pin(sums);
  release<C>(ring, before, me.lane);
}

template <class C>
__device__ __forceinline__ void multiply_f16(float (&sums)[C::kSums], uint32_t shared,
                                             blocks::StageBarriers<C::kStages> ring, blocks::RingPosition& at,
                                             int steps, const Lane& me) {
  const uint64_t x_tile = blocks::wgmma::swizzle128_descriptor(shared);
  const uint64_t w_tile =
      blocks::wgmma::swizzle128_descriptor(shared + C::kWOffset + me.row_group * 64 * 128);
  int before = 0;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    blocks::barrier_wait(ring.full(at.slot), at.parity);
    const uint64_t x = blocks::wgmma::advance(x_tile, at.slot * C::kXBytes);
    const uint64_t w = blocks::wgmma::advance(w_tile, at.slot * C::kWBytes);
    blocks::wgmma::fence();
#pragma unroll
    for (int k16 = 0; k16 < 4; ++k16) {
      blocks::wgmma::multiply<C::kTokens>(sums, blocks::wgmma::advance(w, k16 * 32),
                                          blocks::wgmma::advance(x, k16 * 32), 1);
    }
    blocks::wgmma::commit();
    blocks::wgmma::wait<1>();
    if (step > 0) release<C>(ring, before, me.lane);
    before = at.slot;
    at.advance(C::kStages);
  }
  blocks::wgmma::wait<0>();
  blocks::wgmma::pin(sums);
  release<C>(ring, before, me.lane);
}

/// Four sums of one thread: rows row and row + 8 of tokens token and token + 1.
__device__ __forceinline__ void store_sums(const TileArgs& args, int row, int token, float low0, float low1,
                                           float high0, float high1) {
  float* y = args.y + size_t(token) * args.n + row;
  const bool second = token + 1 < args.m;
  if (token >= args.m) return;
  if (row < args.n) {
    y[0] = low0 * args.row_scale[0];
    if (second) y[args.n] = low1 * args.row_scale[0];
  }
  if (row + 8 < args.n) {
    y[8] = high0 * args.row_scale[1];
    if (second) y[args.n + 8] = high1 * args.row_scale[1];
  }
}

/// All sums of one thread. What the addresses are made of is hidden from the compiler until here: it would
/// compute them before the loop over k and keep them in registers that the sums need.
template <class C>
__device__ __forceinline__ void store_tile(const float (&sums)[C::kSums], const TileArgs& args, int row,
                                           int token) {
  int n = args.n;
  asm volatile("" : "+r"(n), "+r"(row), "+r"(token)::"memory");
  float* y = args.y + size_t(token) * n + row;
  const size_t next = size_t(n) * 8;
  const int left = args.m - token;
  const bool low = row < n;
  const bool high = row + 8 < n;
#pragma unroll
  for (int quad = 0; quad < C::kSums / 4; ++quad) {
    if (left > 8 * quad) {
      if (low) y[0] = sums[4 * quad] * args.row_scale[0];
      if (high) y[8] = sums[4 * quad + 2] * args.row_scale[1];
    }
    if (left > 8 * quad + 1) {
      if (low) y[n] = sums[4 * quad + 1] * args.row_scale[0];
      if (high) y[n + 8] = sums[4 * quad + 3] * args.row_scale[1];
    }
    y += next;
  }
}

/// Where block `block`'s sums over a part of a tile lie: a block has at most two such tiles, the first of its
/// range and the last.
template <class C>
__device__ __forceinline__ float4* part_of(const TileArgs& args, const blocks::StepStream& stream, int block,
                                           int tile, const Lane& me) {
  const int slot = 2 * block + (stream.begin(block) / stream.steps != tile - args.whole_tiles);
  return args.workspace + size_t(slot) * (C::kSums / 4) * C::kRowThreads + me.thread;
}

/// Leaves sums over a part of k in the workspace and says so.
template <class C>
__device__ __forceinline__ void leave_part(const float (&sums)[C::kSums], const TileArgs& args, int tile,
                                           const Lane& me) {
  float4* part = part_of<C>(args, ItemWalk<C>::step_stream(args), blockIdx.x, tile, me);
#pragma unroll
  for (int quad = 0; quad < C::kSums / 4; ++quad) {
    __stcg(part + quad * C::kRowThreads,
           make_float4(sums[4 * quad], sums[4 * quad + 1], sums[4 * quad + 2], sums[4 * quad + 3]));
  }
  __threadfence();
  blocks::named_barrier(2, C::kRowThreads);
  if (me.thread == 0) atomicAdd(args.counters + 2 * tile, 1u);
}

/// Waits for all parts of the tiles that this block had a part of and finishes its slice of each. The last
/// block to have seen a tile complete resets its counters for the next launch.
template <class C>
__device__ __forceinline__ void finish_parts(const TileArgs& args, const Lane& me) {
  constexpr int kQuads = C::kSums / 4;
  const blocks::StepStream stream = ItemWalk<C>::step_stream(args);
  ItemWalk<C> walk(args);
  walk.skip_whole(args);
  TileItem item;
  while (walk.next(args, 0, item)) {
    if (item.count() == stream.steps) continue;
    const int unit = (item.tile - args.whole_tiles) * stream.steps;
    const int first = stream.owner(unit);
    const int parts = stream.owner(unit + stream.steps - 1) - first + 1;
    if (me.thread == 0) {
      unsigned* arrived = args.counters + 2 * item.tile;
      blocks::SpinGuard guard;
      unsigned seen;
      for (;;) {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived) : "memory");
        if (seen >= unsigned(parts)) break;
        guard.poll();
      }
      if (atomicInc(arrived + 1, parts - 1) == unsigned(parts - 1)) atomicExch(arrived, 0u);
      __threadfence();
    }
    blocks::named_barrier(2, C::kRowThreads);
    const auto slice = blocks::split_steps(kQuads, blockIdx.x - first, parts);
#pragma unroll 1
    for (int quad = slice.begin; quad < slice.end; ++quad) {
      float4 total = make_float4(0, 0, 0, 0);
#pragma unroll 4
      for (int part = 0; part < parts; ++part) {
        const float4 v =
            __ldcg(part_of<C>(args, stream, first + part, item.tile, me) + quad * C::kRowThreads);
        total.x += v.x;
        total.y += v.y;
        total.z += v.z;
        total.w += v.w;
      }
      store_sums(args, item.row0 + me.row, item.token0 + me.token + 8 * quad, total.x, total.y, total.z,
                 total.w);
    }
  }
}

/// The two blocks of a cluster hold sums over half of k each, and each has the tokens that it finishes in the
/// first half of its sums: it sends the second half to the other and adds what it gets.
template <class C>
__device__ __forceinline__ void finish_pair(const float (&sums)[C::kSums], const TileArgs& args,
                                            const TileItem& item, const Lane& me, uint32_t shared, int rank) {
  constexpr int kQuads = C::kSums / 8;  // sent, and kept
  blocks::cluster_sync();               // both blocks have read their last stage
  const uint32_t remote = blocks::cluster_address(shared + me.thread * 16, rank ^ 1);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const int a = 4 * quad + C::kSums / 2;
    blocks::cluster_store(remote + quad * C::kRowThreads * 16, sums[a], sums[a + 1], sums[a + 2],
                          sums[a + 3]);
  }
  blocks::cluster_sync();
  int row = item.row0 + me.row;
  int token = item.token0 + me.token + rank * (C::kTokens / 2);
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const uint4 bits = load_shared16(shared + (quad * C::kRowThreads + me.thread) * 16);
    store_sums(args, row, token + 8 * quad, sums[4 * quad] + __uint_as_float(bits.x),
               sums[4 * quad + 1] + __uint_as_float(bits.y), sums[4 * quad + 2] + __uint_as_float(bits.z),
               sums[4 * quad + 3] + __uint_as_float(bits.w));
  }
}

template <class C>
__device__ __forceinline__ void consume(const TileArgs& args, uint32_t shared, float4* exchange,
                                        blocks::StageBarriers<C::kStages> ring, int rank) {
  Lane me;
  const int group = threadIdx.x / 128 - 1;
  me.lane = threadIdx.x % 32;
  me.row_group = group % C::kRowGroups;
  me.half = group / C::kRowGroups;
  me.thread = me.row_group * 128 + threadIdx.x % 128;
  me.row = me.thread / 32 * 16 + me.lane / 4;
  me.token = me.lane % 4 * 2;
  blocks::RingPosition at;
  ItemWalk<C> walk(args);
  TileItem item;
  while (walk.next(args, rank, item)) {
    float sums[C::kSums];
#pragma unroll
    for (int i = 0; i < C::kSums; ++i) sums[i] = 0.0f;
    if constexpr (C::kWeights == Weights::q4_0) {
      multiply_q4<C>(sums, args, shared, ring, at, item.count(), me);
    } else {
      multiply_f16<C>(sums, shared, ring, at, item.count(), me);
    }

    if constexpr (C::kSplitK2) {
      // One item a block: the stages are free once both halves have read them.
      blocks::named_barrier(1, C::kConsumers);
      if (me.half == 1) {
#pragma unroll
        for (int quad = 0; quad < C::kSums / 4; ++quad) {
          exchange[quad * C::kRowThreads + me.thread] =
              make_float4(sums[4 * quad], sums[4 * quad + 1], sums[4 * quad + 2], sums[4 * quad + 3]);
        }
      }
      blocks::named_barrier(1, C::kConsumers);
      if (me.half == 1) return;
#pragma unroll
      for (int quad = 0; quad < C::kSums / 4; ++quad) {
        const float4 v = exchange[quad * C::kRowThreads + me.thread];
        sums[4 * quad] += v.x;
        sums[4 * quad + 1] += v.y;
        sums[4 * quad + 2] += v.z;
        sums[4 * quad + 3] += v.w;
      }
    }

    blocks::dependency_wait();  // it may still read or write y and the workspace
    if constexpr (C::kPair == Pair::halves_k) {
      finish_pair<C>(sums, args, item, me, shared, rank);
    } else {
      if (C::kStream && item.count() < args.k / C::kStageK) {
        leave_part<C>(sums, args, item.tile, me);
      } else {
        store_tile<C>(sums, args, item.row0 + me.row, item.token0 + me.token);
      }
    }
  }
  if constexpr (C::kStream) finish_parts<C>(args, me);
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerSm)
    tile_matmul(const __grid_constant__ TileArgs args) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const uint32_t shared = blocks::shared_address(memory);
  const blocks::StageBarriers<C::kStages> ring{shared + C::kRingOffset};
  const int rank = C::kPair == Pair::none ? 0 : int(blocks::cluster_rank());
  if (threadIdx.x == 0) {
    if (shared % 1024 != 0) __trap();  // the swizzle and the descriptors count from multiples of 1024
    ring.init(C::kGroups * 4 * (C::kPair == Pair::multicast ? 2 : 1));
  }
  if constexpr (C::kPair == Pair::none) {
    __syncthreads();
  } else {
    blocks::cluster_sync();
  }
  blocks::dependency_launch();
  if (threadIdx.x < 128) {
    blocks::give_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) produce<C>(args, shared, ring, rank);
    __syncwarp();
    if constexpr (C::kPair == Pair::halves_k) {
      blocks::cluster_sync();
      blocks::cluster_sync();
    }
  } else {
    blocks::take_registers<C::kConsumerRegisters>();
    consume<C>(args, shared, reinterpret_cast<float4*>(memory), ring, rank);
  }
  // The roles meet again. In a multicast pair a block must stay until the other can no longer copy into its
  // memory or arrive at its barriers; elsewhere this is for ptxas, which serialises the matrix instructions
  // (C7512) of a branch that holds a trap and leads nowhere.
  if constexpr (C::kPair == Pair::none) {
    __syncthreads();
  } else {
    blocks::cluster_sync();
  }
}

}  // namespace mlxn::hopper
