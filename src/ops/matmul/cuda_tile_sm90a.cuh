// y[m, n] = x[m, k] * w[n, k]^T on Hopper with warpgroup matrix instructions, w in records (quant/records.h),
// x staged as f16 (HopperStageArgs). The rows of w are the instruction's rows, the tokens its columns.
//
// Bound: up to 64 tokens by the way of a stage from memory through unpacking to the matrix instructions, with
// reading the weights as the floor; from 128 tokens on by the tensor cores, at thousands of tokens by the
// clock that the power limit leaves. Measured on an H200, q4_0, n 4096, k 14336 (docs/benchmarks.md), before
// stages were freed later and rows had exponents: 13.9 us at 16 tokens (53 % of the read rate), 717 TFLOP/s at
// 512, 684 at 4096.
//
// A block computes 64 * row_groups rows x `tokens` tokens. Of warpgroup 0 one thread copies weights and one
// copies x into two rings of shared memory; the others each hold 64 rows x tokens sums. A consumer warp takes
// a half record of 16 rows x 128 k to registers and makes operand A from it (cuda_tile_formats_sm90a.cuh): two
// sets of four k16 fragments, one being unpacked while the matrix instructions read the other; when both are
// made, all loads have ended, and it frees the stage. B is x in shared memory.
//
// What a block does with k is its Form. Sums over parts of k go through a workspace; the block that comes
// last adds them in the order of k, so that the result does not depend on time. No block waits for another
// one but its cluster's neighbour. Ring positions are counters of one plain loop, so that the compiler keeps
// matrix descriptors in uniform registers: moving them there costs more than the matrix instructions of few
// tokens.
#pragma once

#include <cstdint>

#include "cuda_blocks/bulk.cuh"
#include "cuda_blocks/pipeline.cuh"
#include "cuda_blocks/wgmma.cuh"
#include "ops/matmul/cuda_tile_formats_sm90a.cuh"
#include "ops/matmul/hopper_tile_args.h"
#include "ops/matmul/hopper_tile_shape.h"
#include "quant/gpu_weight.h"

namespace mlxn::tile {

using ops::HopperTileArgs;

template <class F, Shape kShapeT>
struct Config {
  using Format = F;
  static constexpr Shape kShape = kShapeT;
  static constexpr Form kForm = kShape.form;
  static constexpr int kTokens = kShape.tokens;
  static constexpr int kRows = kShape.rows();
  static constexpr int kThreads = kShape.threads();
  static constexpr int kBlocksPerSm = kShape.blocks_per_sm;
  static constexpr int kKGroups = kShape.k_groups;
  static constexpr int kGroups = kShape.row_groups * kKGroups;
  static constexpr int kRowThreads =
      128 * kShape.row_groups;               // the threads that hold the block's sums at the end
  static constexpr int kSums = kTokens / 2;  // per thread
  static constexpr int kXPlanes = kShape.x_planes;
  static constexpr std::uint32_t kXStages = kShape.x_stages;
  static constexpr std::uint32_t kWStages = kShape.w_stages;
  static constexpr std::uint32_t kPlaneBytes = kTokens * 128;
  static constexpr std::uint32_t kXBytes = kShape.x_stage_bytes();
  static constexpr std::uint32_t kWBytes = kShape.w_stage_bytes();
  static constexpr std::uint32_t kWOffset = kShape.w_offset();
  static constexpr std::uint32_t kXBarriers = kShape.ring_bytes();
  static constexpr std::uint32_t kWBarriers = kXBarriers + sm90::StageBarriers<kXStages>::kBytes;
  static constexpr int kCopies = kShape.copies();
  static constexpr std::uint32_t kPieceBytes =
      kShape.half_bytes / kCopies;  // of a record, that one copy moves
  static constexpr int kRecordColumns = (F::kCodeBytes * (F::kSuper ? 2 : 1) + F::kRowBytes) / 8;

  // Registers are handed out to whole warpgroups: all start with the same share, the producer gives most
  // back.
  static constexpr int kStartRegisters = 65536 / (kThreads * kBlocksPerSm) / 8 * 8;
  static constexpr int kProducerRegisters = kTokens == 256 ? 24 : 32;
  static constexpr int kConsumerShare =
      (kStartRegisters * (kGroups + 1) - kProducerRegisters) / kGroups / 8 * 8;
  static constexpr int kConsumerRegisters = kConsumerShare > 240 ? 240 : kConsumerShare;

  static_assert(kShape.half_bytes == int(F::kCodeBytes + F::kRowBytes));
  static_assert(kTokens % 16 == 0 && kTokens <= 256 && kShape.shared_bytes() <= kSharedBytes);
  static_assert(kXBytes % 1024 == 0 && kWBytes / kCopies % 128 == 0 && kPieceBytes % 16 == 0);
  static_assert(kXStages >= 2 && kWStages >= 2 && kXStages % kKGroups == 0 && kWStages % kKGroups == 0);
  static_assert(kKGroups == 1 || (kForm == Form::parts && kXPlanes == 2));
  static_assert(kKGroups == 1 ||
                kRowThreads * kSums * 4 <= int(kXBarriers));  // sums change hands in the stages' memory
};

/// A tile, or a part of its k.
struct Item {
  std::uint32_t row_tile, token_tile, begin, end;
};

template <class C, class Work>
__device__ __forceinline__ void for_each_item(const HopperTileArgs& args, const Work& work) {
  if constexpr (C::kForm == Form::tiles) {
    // Blocks that run together take neighbouring tiles, `token_group` token tiles side by side.
    const std::uint32_t per_group = args.token_group * args.row_tiles;
    for (std::uint32_t i = blockIdx.x; i < args.row_tiles * args.token_tiles; i += gridDim.x) {
      const std::uint32_t first = i / per_group * args.token_group;
      const std::uint32_t left = args.token_tiles - first;
      const std::uint32_t width = left < args.token_group ? left : args.token_group;
      const std::uint32_t inside = i - first * args.row_tiles;
      work(Item{inside / width, first + inside % width, 0, args.steps});
    }
  } else {
    const std::uint32_t part = C::kForm == Form::pair ? blockIdx.x & 1 : blockIdx.z;
    const std::uint32_t begin = part * args.split_steps;
    const std::uint32_t end = begin + args.split_steps < args.steps ? begin + args.split_steps : args.steps;
    work(Item{C::kForm == Form::pair ? blockIdx.x >> 1 : blockIdx.x, blockIdx.y, begin, end});
  }
}

// ---- producers
// --------------------------------------------------------------------------------------------------------

template <class C>
__device__ __forceinline__ void copy_weights(const HopperTileArgs& args, std::uint32_t shared,
                                             sm90::StageBarriers<C::kWStages> ring) {
  using F = typename C::Format;
  sm90::map_prefetch(&args.w);
  sm90::RingPosition at;
  std::uint32_t sent = 0;
  for_each_item<C>(args, [&](const Item& item) {
#pragma unroll 1
    for (std::uint32_t step = item.begin; step < item.end; ++step) {
      if (sent++ == args.prefetch)
        sm90::dependency_wait();  // more copies would take bandwidth from the kernel before
      const std::uint32_t full = ring.full(at.slot);
      sm90::barrier_wait(ring.empty(at.slot), at.parity ^ 1);
      sm90::barrier_arrive_expect(full, C::kWBytes);
      const int column = F::kSuper ? int(step / 2) * C::kRecordColumns + int(step % 2 * (F::kCodeBytes / 8))
                                   : int(step) * C::kRecordColumns;
#pragma unroll
      for (int piece = 0; piece < C::kCopies; ++piece) {
        sm90::map_load(shared + C::kWOffset + at.slot * C::kWBytes + piece * (C::kWBytes / C::kCopies),
                       &args.w, column + piece * int(C::kPieceBytes / 8),
                       int(item.row_tile) * (C::kRows / 16), full);
      }
      at.advance(C::kWStages);
    }
  });
}

template <class C>
__device__ __forceinline__ void copy_x(const HopperTileArgs& args, std::uint32_t shared,
                                       sm90::StageBarriers<C::kXStages> ring) {
  sm90::dependency_wait();
  sm90::RingPosition at;
  for_each_item<C>(args, [&](const Item& item) {
    const std::uint64_t planes = args.steps * 2;
    const std::uint8_t* from = args.x.ptr + (item.token_tile * planes + item.begin * 2) * C::kPlaneBytes;
    const std::uint32_t stages = (item.end - item.begin) * (2 / C::kXPlanes);
#pragma unroll 1
    for (std::uint32_t i = 0; i < stages; ++i) {
      const std::uint32_t full = ring.full(at.slot);
      const std::uint32_t to = shared + at.slot * C::kXBytes;
      sm90::barrier_wait(ring.empty(at.slot), at.parity ^ 1);
      sm90::barrier_arrive_expect(full, C::kXBytes);
      if constexpr (C::kForm == Form::pair) {
        // The half of the tokens that this block finishes comes first.
        const std::uint32_t own = (blockIdx.x & 1) * (C::kXBytes / 2);
        sm90::bulk_load(to, from + own, C::kXBytes / 2, full);
        sm90::bulk_load(to + C::kXBytes / 2, from + (C::kXBytes / 2 - own), C::kXBytes / 2, full);
      } else {
        sm90::bulk_load(to, from, C::kXBytes, full);
      }
      from += C::kXBytes;
      at.advance(C::kXStages);
    }
  });
}

// ---- consumers
// --------------------------------------------------------------------------------------------------------

/// Bytes of a half record in shared memory. Where it came in two pieces, the second lies `kGap` bytes further
/// than it would in one.
template <std::uint32_t kPiece, std::uint32_t kGap>
struct SharedReader {
  std::uint32_t base;

  __device__ __forceinline__ std::uint32_t at(std::uint32_t offset) const {
    if constexpr (kGap == 0) return base + offset;
    return base + offset + (offset >= kPiece ? kGap : 0u);
  }
  __device__ __forceinline__ Words4 words4(std::uint32_t offset) const {
    Words4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                 : "r"(at(offset))
                 : "memory");
    return v;
  }
  __device__ __forceinline__ void words2(std::uint32_t offset, std::uint32_t& a, std::uint32_t& b) const {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "r"(at(offset)) : "memory");
  }
  __device__ __forceinline__ std::uint32_t u32(std::uint32_t offset) const {
    std::uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at(offset)) : "memory");
    return v;
  }
  __device__ __forceinline__ std::uint32_t u16(std::uint32_t offset) const {
    std::uint16_t v;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(at(offset)) : "memory");
    return v;
  }
  __device__ __forceinline__ std::uint32_t u8(std::uint32_t offset) const {
    std::uint32_t v;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(v) : "r"(at(offset)) : "memory");
    return v;
  }
};

/// Words between the four lanes of a row.
struct ShareInRow {
  std::uint32_t lane;
  template <class Own>
  __device__ __forceinline__ std::uint32_t operator()(const Own& own, int word, int of) const {
    return __shfl_sync(~0u, own.w[word], (lane & 28u) | of);
  }
};

/// What a consumer thread knows of its place.
struct Place {
  std::uint32_t lane;
  std::uint32_t thread;  // in the warpgroups that hold sums
  std::uint32_t row;     // of sums[0] inside the block's tile
  std::uint32_t token;   // likewise
};

template <std::uint32_t kStages>
__device__ __forceinline__ void free_stage(sm90::StageBarriers<kStages> ring, std::uint32_t slot,
                                           const Place& me) {
  if (me.lane == 0) sm90::barrier_arrive(ring.empty(slot));
}

/// Starts the four instructions of one plane of x.
template <class C>
__device__ __forceinline__ void start_plane(float (&sums)[C::kSums], std::uint32_t (&a)[4][4],
                                            std::uint64_t x) {
#pragma unroll
  for (int step = 0; step < 4; ++step) sm90::wgmma::pin(a[step]);
  sm90::wgmma::fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    sm90::wgmma::multiply<C::kTokens>(sums, a[step], sm90::wgmma::advance(x, step * 32), 1);
  }
  sm90::wgmma::commit();
}

/// Of rows row and row + 8; those past the records' end have sums that nobody stores.
template <class F>
__device__ __forceinline__ Scaling scaling_of(const HopperTileArgs& args, std::uint32_t row) {
  Scaling scaling;
#pragma unroll
  for (std::uint32_t upper = 0; upper < 2; ++upper) {
    const std::uint32_t at = row + 8 * upper;
    scaling.rows[upper] =
        F::scaling(at < args.n ? __ldg(args.exponents.ptr + at) : 0, static_cast<int>(upper));
  }
  return scaling;
}

/// The sums of an item; kGroup: of the groups that take stages in turn.
template <class C, int kGroup>
__device__ __forceinline__ void multiply(float (&sums)[C::kSums], const HopperTileArgs& args,
                                         std::uint32_t shared, sm90::StageBarriers<C::kXStages> x_ring,
                                         sm90::StageBarriers<C::kWStages> w_ring, sm90::RingPosition& x_at,
                                         sm90::RingPosition& w_at, const Item& item, const Place& me) {
  using F = typename C::Format;
  constexpr std::uint32_t kTurn = C::kKGroups;
  const Scaling scaling = scaling_of<F>(args, item.row_tile * C::kRows + me.row);
  const ShareInRow share{me.lane};
  const std::uint32_t record = shared + C::kWOffset + me.thread / 32 * C::kPieceBytes;
  const std::uint64_t x_tile = sm90::wgmma::swizzle128_descriptor(shared);
  std::uint32_t even[4][4];
  std::uint32_t odd[4][4];
  typename F::Raw raw;
  typename F::Own own;
  // Takes a stage's weights to registers.
  auto read = [&](std::uint32_t step) {
    sm90::barrier_wait(w_ring.full(w_at.slot), w_at.parity);
    const SharedReader<C::kPieceBytes, C::kCopies == 1 ? 0 : C::kWBytes / 2 - C::kPieceBytes> reader{
        record + w_at.slot * C::kWBytes};
    const std::uint32_t half = F::kSuper ? step & 1 : 0;
    raw = F::load(reader, half * F::kRowBytes, me.lane);
    own = F::own(reader, half == 0 ? F::kCodeBytes : 0, me.lane, half, scaling);
  };
  // Frees it, once both planes of fragments are made: only then do all loads have their data for certain. An
  // arrival does not wait for loads (it is issued while they are under way, and orders what threads do with
  // memory, not what copies do), and a copy into the stage overtook them where matrix instructions of many
  // tokens held them up.
  auto free_weights = [&] {
    __syncwarp();
    free_stage(w_ring, w_at.slot, me);
    w_at.advance(C::kWStages);
    if constexpr (kTurn == 2) w_at.advance(C::kWStages);
  };

  const std::uint32_t first = item.begin + kGroup;
  if (first >= item.end) return;
  std::uint32_t before = 0;  // the stage of x that the group of instructions started last still reads
  read(first);
#pragma unroll 1
  for (std::uint32_t step = first; step < item.end; step += kTurn) {
    F::template unpack<0>(raw, own, scaling, share, even);
    const std::uint32_t even_slot = x_at.slot;
    sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
    start_plane<C>(sums, even, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes));
    sm90::wgmma::wait<1>();
    if (step > first) free_stage(x_ring, before, me);
    F::template unpack<1>(raw, own, scaling, share, odd);
    if constexpr (C::kXPlanes == 1) {
      x_at.advance(C::kXStages);
      sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
      start_plane<C>(sums, odd, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes));
    } else {
      start_plane<C>(sums, odd, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes + C::kPlaneBytes));
    }
    before = x_at.slot;
    x_at.advance(C::kXStages);
    if constexpr (kTurn == 2) x_at.advance(C::kXStages);
    free_weights();
    if (step + kTurn < item.end) read(step + kTurn);
    sm90::wgmma::wait<1>();
    if constexpr (C::kXPlanes == 1) free_stage(x_ring, even_slot, me);
  }
  sm90::wgmma::wait<0>();
  sm90::wgmma::pin(sums);
  free_stage(x_ring, before, me);
}

// ---- results
// ----------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void store_element(const HopperTileArgs& args, std::int64_t at, float v) {
  if (args.y_type == quant::kElementF32) {
    static_cast<float*>(args.y.ptr)[at] = v;
  } else {
    std::uint16_t bits;
    if (args.y_type == quant::kElementF16)
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    else
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    static_cast<std::uint16_t*>(args.y.ptr)[at] = bits;
  }
}

/// Four sums: rows row and row + 8 of tokens token and token + 1.
__device__ __forceinline__ void store_quad(const HopperTileArgs& args, std::uint32_t row, std::uint32_t token,
                                           const float2& back, const float4& v) {
  if (token >= args.m) return;
  const float2 scale = __ldcg(reinterpret_cast<const float2*>(args.x_scales.ptr + token));
  const std::int64_t at = std::int64_t(token) * args.y_stride + row;
  const bool second = token + 1 < args.m;
  if (row < args.n) {
    store_element(args, at, v.x * back.x * scale.x);
    if (second) store_element(args, at + args.y_stride, v.y * back.x * scale.y);
  }
  if (row + 8 < args.n) {
    store_element(args, at + 8, v.z * back.y * scale.x);
    if (second) store_element(args, at + args.y_stride + 8, v.w * back.y * scale.y);
  }
}

template <int kCount>
__device__ __forceinline__ float4 quad_of(const float (&sums)[kCount], int quad) {
  return make_float4(sums[4 * quad], sums[4 * quad + 1], sums[4 * quad + 2], sums[4 * quad + 3]);
}
__device__ __forceinline__ float4 plus(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/// What the sums of rows row and row + 8 are multiplied by.
template <class F>
__device__ __forceinline__ float2 back_of(const HopperTileArgs& args, std::uint32_t row) {
  const Scaling scaling = scaling_of<F>(args, row);
  return make_float2(scaling.rows[0].back, scaling.rows[1].back);
}

/// What addresses are made of is hidden from the compiler until here: it would compute them before the loop
/// over k and keep them in registers that the sums need.
template <class F, int kCount>
__device__ __forceinline__ void store_tile(const float (&sums)[kCount], const HopperTileArgs& args,
                                           std::uint32_t row, std::uint32_t token) {
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  const float2 back = back_of<F>(args, row);
#pragma unroll
  for (int quad = 0; quad < kCount / 4; ++quad)
    store_quad(args, row, token + 8 * quad, back, quad_of(sums, quad));
}

/// Sums over a part of k: leaves them in the workspace; the block that comes last adds all parts and stores.
template <class C>
__device__ __forceinline__ void finish_part(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                            std::uint32_t row, std::uint32_t token, const Place& me,
                                            volatile std::uint32_t* is_last) {
  constexpr int kQuads = C::kSums / 4;
  const std::uint32_t parts = gridDim.z;
  const std::uint32_t tile = blockIdx.y * gridDim.x + blockIdx.x;
  float4* first = reinterpret_cast<float4*>(args.workspace.ptr) +
                  std::size_t(tile) * parts * kQuads * C::kRowThreads + me.thread;
  float4* own = first + std::size_t(blockIdx.z) * kQuads * C::kRowThreads;
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) __stcg(own + quad * C::kRowThreads, quad_of(sums, quad));
  __threadfence();
  sm90::named_barrier(2, C::kRowThreads);
  if (me.thread == 0) {
    const bool last = atomicAdd(args.counters.ptr + tile, 1u) + 1 == parts;
    if (last) args.counters.ptr[tile] = 0;  // for a next product of the same x
    *is_last = last;
    __threadfence();
  }
  sm90::named_barrier(2, C::kRowThreads);
  if (*is_last == 0) return;
  const float2 back = back_of<typename C::Format>(args, row);
#pragma unroll 2
  for (int quad = 0; quad < kQuads; ++quad) {
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (std::uint32_t part = 0; part < parts; ++part) {
      total = plus(total, __ldcg(first + (std::size_t(part) * kQuads + quad) * C::kRowThreads));
    }
    store_quad(args, row, token + 8 * quad, back, total);
  }
}

/// The two blocks of a cluster hold sums over half of k each, and each has the tokens that it finishes in the
/// first half of its sums: it sends the second half to the other and adds what it gets.
template <class C>
__device__ __forceinline__ void finish_pair(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                            std::uint32_t row, std::uint32_t token, const Place& me,
                                            std::uint32_t shared, const float4* memory) {
  constexpr int kQuads = C::kSums / 8;  // sent, and kept
  const std::uint32_t rank = blockIdx.x & 1;
  sm90::cluster_sync();  // both blocks have read their last stage
  const std::uint32_t remote = sm90::cluster_address(shared + me.thread * 16, rank ^ 1);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const float4 v = quad_of(sums, quad + kQuads);
    sm90::cluster_store(remote + quad * C::kRowThreads * 16, v.x, v.y, v.z, v.w);
  }
  sm90::cluster_sync();
  token += rank * (C::kTokens / 2);
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  const float2 back = back_of<typename C::Format>(args, row);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    store_quad(args, row, token + 8 * quad, back,
               plus(quad_of(sums, quad), memory[quad * C::kRowThreads + me.thread]));
  }
}

template <class C, int kGroup>
__device__ __forceinline__ void consume(const HopperTileArgs& args, std::uint32_t shared, float4* memory,
                                        sm90::StageBarriers<C::kXStages> x_ring,
                                        sm90::StageBarriers<C::kWStages> w_ring) {
  Place me;
  me.lane = threadIdx.x % 32;
  me.thread = threadIdx.x - 128 - kGroup * C::kRowThreads;
  me.row = me.thread / 32 * 16 + me.lane / 4;
  me.token = me.lane % 4 * 2;
  sm90::RingPosition x_at{kGroup, 0};
  sm90::RingPosition w_at{kGroup, 0};
  for_each_item<C>(args, [&](const Item& item) {
    float sums[C::kSums];
#pragma unroll
    for (int i = 0; i < C::kSums; ++i) sums[i] = 0.0f;
    multiply<C, kGroup>(sums, args, shared, x_ring, w_ring, x_at, w_at, item, me);
    const std::uint32_t row = item.row_tile * C::kRows + me.row;
    const std::uint32_t token = item.token_tile * C::kTokens + me.token;
    if constexpr (C::kKGroups == 2) {
      // The stages are free once both groups have read them.
      sm90::named_barrier(1, 2 * C::kRowThreads);
      if constexpr (kGroup == 1) {
#pragma unroll
        for (int quad = 0; quad < C::kSums / 4; ++quad)
          memory[quad * C::kRowThreads + me.thread] = quad_of(sums, quad);
      }
      sm90::named_barrier(1, 2 * C::kRowThreads);
      if constexpr (kGroup == 0) {
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
    if constexpr (kGroup == 0) {
      sm90::dependency_wait();  // the kernel before may still read or write y and the workspace
      if constexpr (C::kForm == Form::pair) {
        finish_pair<C>(sums, args, row, token, me, shared, memory);
      } else if constexpr (C::kForm == Form::parts) {
        if (gridDim.z == 1)
          store_tile<typename C::Format>(sums, args, row, token);
        else
          finish_part<C>(sums, args, row, token, me, reinterpret_cast<std::uint32_t*>(memory));
      } else {
        store_tile<typename C::Format>(sums, args, row, token);
      }
    }
  });
}

template <class C>
__device__ __forceinline__ void tile_matmul(const HopperTileArgs& args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  extern __shared__ __align__(1024) unsigned char memory[];
  const std::uint32_t shared = sm90::shared_address(memory);
  const sm90::StageBarriers<C::kXStages> x_ring{shared + C::kXBarriers};
  const sm90::StageBarriers<C::kWStages> w_ring{shared + C::kWBarriers};
  if (threadIdx.x == 0) {
    if (shared % 1024 != 0) __trap();  // the swizzle and the descriptors count from multiples of 1024
    x_ring.init(4 * C::kShape.row_groups);
    w_ring.init(4 * C::kShape.row_groups);
  }
  if constexpr (C::kForm == Form::pair)
    sm90::cluster_sync();
  else
    __syncthreads();
  sm90::dependency_launch();
  if (threadIdx.x < 128) {
    sm90::give_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) copy_weights<C>(args, shared, w_ring);
    if (threadIdx.x == 32) copy_x<C>(args, shared, x_ring);
    __syncwarp();
    if constexpr (C::kForm == Form::pair) {
      sm90::cluster_sync();
      sm90::cluster_sync();
    }
  } else {
    sm90::take_registers<C::kConsumerRegisters>();
    float4* exchange = reinterpret_cast<float4*>(memory);
    if constexpr (C::kKGroups == 1) {
      consume<C, 0>(args, shared, exchange, x_ring, w_ring);
    } else if (threadIdx.x < 128 + C::kRowThreads) {
      consume<C, 0>(args, shared, exchange, x_ring, w_ring);
    } else {
      consume<C, 1>(args, shared, exchange, x_ring, w_ring);
    }
  }
  // The roles meet again, for ptxas, which serialises the matrix instructions (C7512) of a branch that holds
  // a trap and leads nowhere.
  if constexpr (C::kForm == Form::pair)
    sm90::cluster_sync();
  else
    __syncthreads();
#endif
}

}  // namespace mlxn::tile
