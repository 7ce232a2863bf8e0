// y[m, n] = x[m, k] * w[n, k]^T on Hopper with warpgroup matrix instructions, w in records (quant/records.h)
// or dense in rows, x in rows of f16 or bf16: the caller's own, or what HopperStageArgs makes of them. The
// rows of w are the instruction's rows, the tokens its columns.
//
// Bound: up to 64 tokens by the instructions of unpacking: a step of 128 k takes 1.7 ns longer for every one
// that half a record costs a lane (a scheduler has two warps that multiply, and half of its slots are taken);
// reading the weights is the floor (dense weights: the bound). From 128 tokens on by the tensor cores, at
// thousands of tokens by the clock that the power limit leaves. Measured on an H200, n 4096, k 14336
// (docs/benchmarks.md): q4_0 13.9 us at 16 tokens (53 % of the read rate), q4_K 14.2; at 64 tokens 19.1 and
// 21.2; q4_0 756 TFLOP/s at 512; f16 675 TFLOP/s at 512 and 644 at 4096, where cuBLAS in the same runs takes
// 0.93 and 1.01 times as long.
//
// A block computes 64 * row_groups rows x `tokens` tokens. Of warpgroup 0 one thread copies weights and one
// copies x into two rings of shared memory; the others each hold 64 rows x tokens sums. B is x in shared
// memory. A of records: a consumer warp takes a half record of 16 rows x 128 k to registers and makes the
// operand from it (cuda_tile_formats_sm90a.cuh): two sets of four k16 fragments, one being unpacked while the
// matrix instructions read the other; when both are made, all loads have ended, and it frees the stage. bf16
// that becomes f16 goes the same way from the 128-byte swizzle that tensor copies leave; other dense weights
// are read from there by the instructions themselves, which free the stage when they have ended.
//
// Of types with super-blocks and few tokens (up to 32 with minimums, else 64), sums are kept by record
// (Shape::by_record): the operand is whole numbers, scale times code, which cost one multiplication a pair;
// the super-block's d is multiplied to the sums of a record, a few for each thread, and minimums are one more
// instruction per half record, against sums of x over 16 k that come with each stage of x. For more tokens
// that costs more than it saves, and there are no registers for more sums; weights are made whole in the
// operand.
//
// What a block does with k is its Form. Sums over parts of k go through a workspace; the block that comes
// last adds them in the order of k, so that the result does not depend on time. No block waits for another
// one but its cluster's neighbour. Ring positions are counters of one plain loop, so that the compiler keeps
// matrix descriptors in uniform registers: moving them there costs more than the matrix instructions of few
// tokens.
#pragma once

#include <cstdint>

#include "cuda_blocks/bulk.cuh"
#include "cuda_blocks/mma.cuh"
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
  static constexpr bool kByRecord = kShape.by_record != Nesting::none;
  static constexpr bool kIsFew = kShape.few;
  static constexpr bool kHasSums = kShape.x_sums;
  static constexpr int kSumWarps = 2;  // of the producers' warpgroup
  static constexpr std::uint32_t kSumBytes = kShape.sum_stage_bytes();
  static constexpr std::uint32_t kSumOffset = kShape.sum_offset();
  static constexpr std::uint32_t kWOffset = kShape.w_offset();
  static constexpr std::uint32_t kXBarriers = kShape.ring_bytes();
  static constexpr std::uint32_t kWBarriers = kXBarriers + sm90::StageBarriers<kXStages>::kBytes;
  static constexpr std::uint32_t kSummed = kWBarriers + sm90::StageBarriers<kWStages>::kBytes;  // one a stage of x
  // Two barriers of blocks with two k groups: all have read their last stage; the second's sums lie there.
  static constexpr std::uint32_t kExchange = kShape.exchange_offset();
  static constexpr std::uint32_t kBarrierEnd = kShape.barrier_end(), kEnd = kShape.shared_bytes();
  static constexpr int kCopies = kShape.copies();
  static constexpr std::uint32_t kPieceBytes =
      kShape.half_bytes / kCopies;  // of a record, that one copy moves
  static constexpr int kRecordColumns = (F::kCodeBytes * (F::kSuper ? 2 : 1) + F::kRowBytes) / 8;
  static constexpr bool kIsDense = kShape.is_dense;
  static constexpr bool kHasCluster = kForm == Form::pair;
  static constexpr bool kIsScaled = F::kIsScaled;
  static constexpr std::uint32_t kWPlaneBytes = kRows * 128;  // 64 k of dense weights

  // Registers are handed out to whole warpgroups: all start with the same share, the producer gives most
  // back.
  static constexpr int kStartRegisters = 65536 / (kThreads * kBlocksPerSm) / 8 * 8;
  static constexpr int kProducerRegisters = kTokens == 256 ? 24 : kHasSums ? 72 : 32;
  static constexpr int kConsumerShare =
      (kStartRegisters * (kGroups + 1) - kProducerRegisters) / kGroups / 8 * 8;
  static constexpr int kConsumerRegisters = kConsumerShare > 240 ? 240 : kConsumerShare;

  static_assert(kShape.half_bytes == int(F::kCodeBytes + F::kRowBytes));
  static_assert(kTokens % (kIsFew ? 8 : 16) == 0 && kTokens <= (kIsFew ? 16 : 256) &&
                kShape.shared_bytes() <= kSharedBytes);
  static_assert(!kIsDense || (kWBytes == 2 * kWPlaneBytes && kCopies == 2 && kXPlanes == 1 && kKGroups == 1));
  static_assert(kXBytes % 1024 == 0 && kWBytes / kCopies % 128 == 0 && kPieceBytes % 16 == 0);
  static_assert(!kByRecord || (kXPlanes == 2 && kKGroups == 1));
  static_assert(kForm != Form::pair || kXPlanes == 1);  // halves of the tokens are halves of a stage
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

/// Scales of tokens, which the kernel before may have written. A tile's are brought to the first-level cache
/// by who copies x, long before they are wanted: from the L2 they take microseconds while all blocks end.
__device__ __forceinline__ float load_scale(const float* from) {
  float v;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(__cvta_generic_to_global(from)) : "memory");
  return v;
}
__device__ __forceinline__ float2 load_scales(const float* from) {
  float2 v;
  asm volatile("ld.global.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
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

/// Where types that look up have their table: behind the barriers, at a multiple of its size.
template <class C>
__device__ __forceinline__ std::uint32_t table_of(std::uint32_t shared) {
  return (shared + C::kBarrierEnd + PairTable::kBytes - 1) & ~(PairTable::kBytes - 1);
}
/// The table of types that look up, by the warps from the second on.
template <class C>
__device__ __forceinline__ void make_table(std::uint32_t shared) {
  using Codes = typename C::Format::Codes;
  const std::uint32_t lane = threadIdx.x % 32;
  for (std::uint32_t byte = (threadIdx.x / 32 - 1) * 4 + lane / 8; byte < 256; byte += (C::kThreads / 32 - 1) * 4) {
    const std::uint32_t pair = Codes::pair(byte);
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(table_of<C>(shared) + byte * 128 + lane % 8 * 16),
                 "r"(pair)
                 : "memory");
  }
}

// ---- consumers
// --------------------------------------------------------------------------------------------------------

/// Bytes of a half record in shared memory. Where it came in two pieces, the second lies `kGap` bytes further
/// than it would in one.
template <std::uint32_t kPiece, std::uint32_t kGap>
struct SharedReader {
  std::uint32_t base;
  PairTable pairs;

  __device__ __forceinline__ PairTable table() const { return pairs; }

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

/// The row of w whose sums are the thread's first: with a gate, the first half of a tile's rows are the
/// gate's.
template <class C>
__device__ __forceinline__ std::uint32_t weight_row(const HopperTileArgs& args, const Item& item,
                                                    const Place& me) {
  constexpr std::uint32_t kHalf = C::kRows / 2;
  if (args.gate_rows == 0) return item.row_tile * C::kRows + me.row;
  return item.row_tile * kHalf + me.row + (me.row < kHalf ? 0 : args.gate_rows - kHalf);
}

template <std::uint32_t kStages>
__device__ __forceinline__ void free_stage(sm90::StageBarriers<kStages> ring, std::uint32_t slot,
                                           const Place& me) {
  if (me.lane == 0) sm90::barrier_arrive(ring.empty(slot));
}

/// The producers' warp that begins the sums of x, of kSumWarps.
constexpr std::uint32_t kFirstSumWarp = 2;

/// Starts the four instructions of one plane of x, as part of a group; keep: 0 begins sums anew.
template <class C>
__device__ __forceinline__ void add_plane(float (&sums)[C::kSums], std::uint32_t (&a)[4][4], std::uint64_t x,
                                          int keep = 1) {
#pragma unroll
  for (int step = 0; step < 4; ++step) sm90::wgmma::pin(a[step]);
  sm90::wgmma::fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    sm90::wgmma::multiply<C::kTokens>(sums, a[step], sm90::wgmma::advance(x, step * 32),
                                      step == 0 ? keep : 1);
  }
}
template <class C>
__device__ __forceinline__ void start_plane(float (&sums)[C::kSums], std::uint32_t (&a)[4][4],
                                            std::uint64_t x, int keep = 1) {
  add_plane<C>(sums, a, x, keep);
  sm90::wgmma::commit();
}

/// Of rows row and row + 8; those past the weights' end have sums that nobody stores.
template <class F>
__device__ __forceinline__ Scaling scaling_of(const HopperTileArgs& args, std::uint32_t row) {
  Scaling scaling;
#pragma unroll
  for (std::uint32_t upper = 0; upper < 2; ++upper) {
    const std::uint32_t at = row + 8 * upper;
    scaling.rows[upper] = F::scaling(at < args.n + args.gate_rows ? __ldg(args.exponents.ptr + at) : 0,
                                     static_cast<int>(upper));
  }
  return scaling;
}

}  // namespace mlxn::tile

#include "ops/matmul/cuda_tile_few_sm90a.cuh"

namespace mlxn::tile {

/// A half of a record.
template <int kIndex>
struct Half {};

/// The sums of an item, of types with super-blocks a whole number of records; kGroup: of the groups that take
/// stages in turn.
template <class C, int kGroup>
__device__ __forceinline__ void multiply(float (&sums)[C::kSums], const HopperTileArgs& args,
                                         std::uint32_t shared, sm90::StageBarriers<C::kXStages> x_ring,
                                         sm90::StageBarriers<C::kWStages> w_ring, sm90::RingPosition& x_at,
                                         sm90::RingPosition& w_at, const Item& item, const Place& me) {
  using F = typename C::Format;
  constexpr std::uint32_t kTurn = C::kKGroups;
  const Scaling scaling = scaling_of<F>(args, weight_row<C>(args, item, me));
  const ShareInRow share{me.lane};
  const std::uint32_t record = shared + C::kWOffset + me.thread / 32 * C::kPieceBytes;
  const std::uint64_t x_tile = sm90::wgmma::swizzle128_descriptor(shared);
  std::uint32_t even[4][4];
  std::uint32_t odd[4][4];
  typename F::Raw raw;
  typename F::Own own;
  // Takes a stage's weights to registers; a record's scales with its first half.
  auto read = [&]<int kHalf>(Half<kHalf>) {
    sm90::barrier_wait(w_ring.full(w_at.slot), w_at.parity);
    const SharedReader<C::kPieceBytes, C::kCopies == 1 ? 0 : C::kWBytes / 2 - C::kPieceBytes> reader{
        record + w_at.slot * C::kWBytes, {table_of<C>(shared) | me.lane * 4}};
    raw = F::load(reader, kHalf * F::kRowBytes, me.lane);
    if constexpr (kHalf == 0) own = F::own(reader, F::kCodeBytes, me.lane, scaling);
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
  // A step of 128 k; kNext: the half of a record that the next step takes.
  auto multiply_step = [&]<int kHalf, int kNext>(std::uint32_t step, Half<kHalf>, Half<kNext> next) {
    F::template unpack<kHalf, 0>(raw, own, scaling, share, even);
    [[maybe_unused]] const std::uint32_t even_slot = x_at.slot;
    sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
    start_plane<C>(sums, even, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes));
    sm90::wgmma::wait<1>();
    if (kHalf == 1 || step > first) free_stage(x_ring, before, me);
    F::template unpack<kHalf, 1>(raw, own, scaling, share, odd);
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
    if (kNext == 1 || step + kTurn < item.end) read(next);
    sm90::wgmma::wait<1>();
    if constexpr (C::kXPlanes == 1) free_stage(x_ring, even_slot, me);
  };
  read(Half<0>{});
  if constexpr (F::kSuper) {
    static_assert(kTurn == 1);
#pragma unroll 1
    for (std::uint32_t step = first; step < item.end; step += 2) {
      multiply_step(step, Half<0>{}, Half<1>{});
      multiply_step(step + 1, Half<1>{}, Half<0>{});
    }
  } else {
#pragma unroll 1
    for (std::uint32_t step = first; step < item.end; step += kTurn)
      multiply_step(step, Half<0>{}, Half<0>{});
  }
  sm90::wgmma::wait<0>();
  sm90::wgmma::pin(sums);
  free_stage(x_ring, before, me);
}

/// The same where sums are kept by record: d times the sums of whole numbers, less m times those of minimums.
template <class C>
__device__ __forceinline__ void multiply_by_record(float (&sums)[C::kSums], const HopperTileArgs& args,
                                                   std::uint32_t shared,
                                                   sm90::StageBarriers<C::kXStages> x_ring,
                                                   sm90::StageBarriers<C::kWStages> w_ring,
                                                   sm90::RingPosition& x_at, sm90::RingPosition& w_at,
                                                   const Item& item, const Place& me) {
  using F = typename C::Format;
  using Record = ByRecord<F>;
  constexpr bool kAdds = Record::kAdds;
  const ShareInRow share{me.lane};
  const std::uint32_t record = shared + C::kWOffset + me.thread / 32 * C::kPieceBytes;
  const std::uint64_t x_tile = sm90::wgmma::swizzle128_descriptor(shared);
  const std::uint64_t x_sums = sm90::wgmma::plain_descriptor(shared + C::kSumOffset, C::kTokens * 16);
  std::uint32_t even[4][4];
  std::uint32_t odd[4][4];
  std::uint32_t minimums[4];
  float of_record[C::kSums];
  float of_minimums[kAdds ? C::kSums : 1];
  typename Record::Raw raw;
  typename Record::Own own;
  typename Record::Factors factors{};  // of the record whose sums are not added yet
#pragma unroll
  for (float& sum : of_record) sum = 0.0f;
#pragma unroll
  for (float& sum : of_minimums) sum = 0.0f;
  auto read = [&]<int kHalf>(Half<kHalf>) {
    sm90::barrier_wait(w_ring.full(w_at.slot), w_at.parity);
    const SharedReader<C::kPieceBytes, C::kCopies == 1 ? 0 : C::kWBytes / 2 - C::kPieceBytes> reader{
        record + w_at.slot * C::kWBytes, {table_of<C>(shared) | me.lane * 4}};
    raw = Record::load(reader, kHalf * F::kRowBytes, me.lane);
    if constexpr (kHalf == 0) own = Record::own(reader, F::kCodeBytes, me.lane);
  };
  auto add_record = [&] {
    sm90::wgmma::wait<0>();
    sm90::wgmma::pin(of_record);
    if constexpr (kAdds) sm90::wgmma::pin(of_minimums);
#pragma unroll
    for (int i = 0; i < C::kSums; ++i) {
      sums[i] += factors.d[i % 4 / 2] * of_record[i];
      if constexpr (kAdds) sums[i] -= factors.m[i % 4 / 2] * of_minimums[i];
    }
  };
  std::uint32_t before = 0;  // the stage of x that the group of instructions started last still reads
  auto multiply_step = [&]<int kHalf>(std::uint32_t step, Half<kHalf>) {
    Record::template unpack<kHalf, 0>(raw, own, share, even);
    if constexpr (kHalf == 0) {
      add_record();
      factors = Record::factors(own);
      if (step > item.begin) free_stage(x_ring, before, me);
    }
    sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
    const std::uint64_t x = sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes);
    start_plane<C>(of_record, even, x, kHalf);
    if constexpr (kHalf == 1) {
      sm90::wgmma::wait<1>();
      free_stage(x_ring, before, me);
    }
    Record::template unpack<kHalf, 1>(raw, own, share, odd);
    if constexpr (kAdds) {
      Record::template minimums<kHalf>(own, minimums);
      sm90::barrier_wait(shared + C::kSummed + x_at.slot * 8, x_at.parity);
      sm90::wgmma::pin(minimums);
    }
    add_plane<C>(of_record, odd, sm90::wgmma::advance(x, C::kPlaneBytes));
    if constexpr (kAdds) {
      sm90::wgmma::multiply<C::kTokens>(of_minimums, minimums,
                                        sm90::wgmma::advance(x_sums, x_at.slot * C::kSumBytes), kHalf);
    }
    sm90::wgmma::commit();
    before = x_at.slot;
    x_at.advance(C::kXStages);
    // All loads have ended, see above.
    __syncwarp();
    free_stage(w_ring, w_at.slot, me);
    w_at.advance(C::kWStages);
    if constexpr (kHalf == 0)
      read(Half<1>{});
    else if (step + 1 < item.end)
      read(Half<0>{});
    sm90::wgmma::wait<1>();
  };
  if (item.begin >= item.end) return;
  read(Half<0>{});
#pragma unroll 1
  for (std::uint32_t step = item.begin; step < item.end; step += 2) {
    multiply_step(step, Half<0>{});
    multiply_step(step + 1, Half<1>{});
  }
  add_record();
  free_stage(x_ring, before, me);
}

/// The same of dense weights that the instructions take from shared memory.
template <class C>
__device__ __forceinline__ void multiply_shared(float (&sums)[C::kSums], std::uint32_t shared,
                                                sm90::StageBarriers<C::kXStages> x_ring,
                                                sm90::StageBarriers<C::kWStages> w_ring,
                                                sm90::RingPosition& x_at, sm90::RingPosition& w_at,
                                                const Item& item, const Place& me) {
  using sm90::wgmma::Element;
  constexpr Element kElement = C::Format::kOperand == DenseOperand::bf16 ? Element::bf16 : Element::f16;
  const std::uint64_t x_tile = sm90::wgmma::swizzle128_descriptor(shared);
  // The same in all lanes, which the compiler is told so.
  const std::uint32_t row_group = __shfl_sync(~0u, me.thread / 128, 0);
  const std::uint64_t w_tile =
      sm90::wgmma::swizzle128_descriptor(shared + C::kWOffset + row_group * 64 * 128);
  if (item.begin >= item.end) return;
  std::uint32_t x_before = 0, w_before = 0;  // stages that the group of instructions started last still reads
#pragma unroll 1
  for (std::uint32_t step = item.begin; step < item.end; ++step) {
    sm90::barrier_wait(w_ring.full(w_at.slot), w_at.parity);
#pragma unroll
    for (int plane = 0; plane < 2; ++plane) {
      sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
      const std::uint64_t x = sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes);
      const std::uint64_t w = sm90::wgmma::advance(w_tile, w_at.slot * C::kWBytes + plane * C::kWPlaneBytes);
      sm90::wgmma::fence();
#pragma unroll
      for (int k16 = 0; k16 < 4; ++k16) {
        sm90::wgmma::multiply<C::kTokens, kElement>(sums, sm90::wgmma::advance(w, k16 * 32),
                                                    sm90::wgmma::advance(x, k16 * 32), 1);
      }
      sm90::wgmma::commit();
      sm90::wgmma::wait<1>();
      if (plane == 1 || step > item.begin) free_stage(x_ring, x_before, me);
      if (plane == 0 && step > item.begin) free_stage(w_ring, w_before, me);
      x_before = x_at.slot;
      x_at.advance(C::kXStages);
    }
    w_before = w_at.slot;
    w_at.advance(C::kWStages);
  }
  sm90::wgmma::wait<0>();
  sm90::wgmma::pin(sums);
  free_stage(x_ring, x_before, me);
  free_stage(w_ring, w_before, me);
}

/// The same of dense weights in bf16 that become f16 on the way through registers.
template <class C>
__device__ __forceinline__ void multiply_to_f16(float (&sums)[C::kSums], const HopperTileArgs& args,
                                                std::uint32_t shared, sm90::StageBarriers<C::kXStages> x_ring,
                                                sm90::StageBarriers<C::kWStages> w_ring,
                                                sm90::RingPosition& x_at, sm90::RingPosition& w_at,
                                                const Item& item, const Place& me) {
  using F = typename C::Format;
  if (item.begin >= item.end) return;
  const Scaling scaling = scaling_of<F>(args, weight_row<C>(args, item, me));
  const std::uint64_t x_tile = sm90::wgmma::swizzle128_descriptor(shared);
  // Lane l names row l % 8 (+ 8) of the warp's sixteen, and there the 16-byte piece of k 0 or 8 (+ 16 * k16).
  const std::uint32_t row = me.thread / 32 * 16 + me.lane % 16;
  const std::uint32_t weights = shared + C::kWOffset + row * 128 + (((me.lane >> 4) ^ (row & 7)) << 4);
  std::uint32_t even[4][4];
  std::uint32_t odd[4][4];
  std::uint32_t raw[4][4];
  auto read = [&](std::uint32_t plane) {
    // The base is a multiple of 1024, so that bits 5 and 6 of the address are the swizzle's.
    const std::uint32_t at = weights + w_at.slot * C::kWBytes + plane * C::kWPlaneBytes;
#pragma unroll
    for (std::uint32_t k16 = 0; k16 < 4; ++k16) sm90::load_matrix_x4(raw[k16], at ^ (k16 * 32));
  };
  auto convert = [&](std::uint32_t(&a)[4][4]) {
#pragma unroll
    for (int k16 = 0; k16 < 4; ++k16) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[k16][i] = F::to_f16(raw[k16][i], scaling.rows[i % 2].weight);
    }
  };
  sm90::barrier_wait(w_ring.full(w_at.slot), w_at.parity);
  read(0);
  std::uint32_t before = 0;  // the stage of x that the group of instructions started last still reads
#pragma unroll 1
  for (std::uint32_t step = item.begin; step < item.end; ++step) {
    convert(even);
    read(1);
    const std::uint32_t even_slot = x_at.slot;
    sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
    start_plane<C>(sums, even, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes));
    x_at.advance(C::kXStages);
    sm90::wgmma::wait<1>();
    if (step > item.begin) free_stage(x_ring, before, me);
    convert(odd);
    before = x_at.slot;
    sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
    start_plane<C>(sums, odd, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes));
    x_at.advance(C::kXStages);
    // All loads have ended: both planes' fragments are made.
    __syncwarp();
    free_stage(w_ring, w_at.slot, me);
    w_at.advance(C::kWStages);
    if (step + 1 < item.end) {
      sm90::barrier_wait(w_ring.full(w_at.slot), w_at.parity);
      read(0);
    }
    sm90::wgmma::wait<1>();
    free_stage(x_ring, even_slot, me);
  }
  sm90::wgmma::wait<0>();
  sm90::wgmma::pin(sums);
  free_stage(x_ring, before, me);
}

// ---- results
// ----------------------------------------------------------------------------------------------------------

/// The type of y, in which code that stores much branches once.
template <std::uint32_t kElementType>
struct YType {
  static constexpr int kBytes = kElementType == quant::kElementF32 ? 4 : 2;

  /// A predicated store: the compiler would branch around each.
  static __device__ __forceinline__ void store_if(bool wanted, char* to, float v) {
    if constexpr (kElementType == quant::kElementF32) {
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %2, 0;\n @p st.global.f32 [%0], %1;\n}" ::"l"(
                       __cvta_generic_to_global(to)),
                   "f"(v), "r"(int(wanted))
                   : "memory");
    } else {
      std::uint16_t bits;
      if constexpr (kElementType == quant::kElementF16)
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
      else
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %2, 0;\n @p st.global.u16 [%0], %1;\n}" ::"l"(
                       __cvta_generic_to_global(to)),
                   "h"(bits), "r"(int(wanted))
                   : "memory");
    }
  }
};
template <class Work>
__device__ __forceinline__ void with_y_type(const HopperTileArgs& args, const Work& work) {
  if (args.y_type == quant::kElementF32)
    work(YType<quant::kElementF32>{});
  else if (args.y_type == quant::kElementF16)
    work(YType<quant::kElementF16>{});
  else
    work(YType<quant::kElementBf16>{});
}

template <int kCount>
__device__ __forceinline__ float4 quad_of(const float (&sums)[kCount], int quad) {
  return make_float4(sums[4 * quad], sums[4 * quad + 1], sums[4 * quad + 2], sums[4 * quad + 3]);
}
__device__ __forceinline__ float4 plus(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/// What the sums of rows row and row + 8 are multiplied by.
template <class C>
__device__ __forceinline__ float2 back_of(const HopperTileArgs& args, std::uint32_t row) {
  if constexpr (C::kIsFew) {
    using Type = Few<typename C::Format>;
    float2 back = make_float2(Type::back(0), Type::back(1));
    if constexpr (Type::kIsScaled) {
      const Scaling scaling = scaling_of<typename C::Format>(args, row);
      back.x *= inverse_power(scaling.rows[0].weight), back.y *= inverse_power(scaling.rows[1].weight);
    }
    return back;
  } else if constexpr (C::kByRecord) {
    return make_float2(ByRecord<typename C::Format>::back(0), ByRecord<typename C::Format>::back(1));
  } else if constexpr (C::kIsScaled) {
    const Scaling scaling = scaling_of<typename C::Format>(args, row);
    return make_float2(scaling.rows[0].back, scaling.rows[1].back);
  } else {
    return make_float2(1.0f, 1.0f);
  }
}

/// kCount times four sums, quad(i): rows row and row + 8 of tokens token + 8 * i and the one behind. All
/// scales are asked for before the first is used: one wait for the L2, where each store would wait for a load
/// behind it, which might read what it writes for all that the compiler knows.
template <int kCount, class Y, class Quad>
__device__ __forceinline__ void store_quads(const HopperTileArgs& args, Y, std::uint32_t row,
                                            std::uint32_t token, const float2& back, const Quad& quad) {
  float2 scales[kCount];
  if (args.x_scales.ptr != nullptr) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)  // tokens beyond m have scales too, to the end of the tile
      scales[i] = load_scales(args.x_scales.ptr + token + 8 * i);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) scales[i] = make_float2(1.0f, 1.0f);
  }
  const bool low = row < args.n, high = row + 8 < args.n;
  const int left = int(args.m) - int(token);
  const std::int64_t next = args.y_stride * Y::kBytes;
  char* to = static_cast<char*>(args.y.ptr) + std::int64_t(token) * next + std::int64_t(row) * Y::kBytes;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float4 v = quad(i);
    const bool first = left > 8 * i, second = left > 8 * i + 1;
    Y::store_if(first && low, to, v.x * back.x * scales[i].x);
    Y::store_if(first && high, to + 8 * Y::kBytes, v.z * back.y * scales[i].x);
    Y::store_if(second && low, to + next, v.y * back.x * scales[i].y);
    Y::store_if(second && high, to + next + 8 * Y::kBytes, v.w * back.y * scales[i].y);
    to += 8 * next;
  }
}

/// What addresses are made of is hidden from the compiler until here: it would compute them before the loop
/// over k and keep them in registers that the sums need.
template <class C>
__device__ __forceinline__ void store_tile(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                           std::uint32_t row, std::uint32_t token) {
  constexpr int kQuads = C::kSums / 4, kBatch = kQuads < 16 ? kQuads : 16;
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  const float2 back = back_of<C>(args, row);
  with_y_type(args, [&](auto y) {
#pragma unroll
    for (int first = 0; first < kQuads; first += kBatch) {
      store_quads<kBatch>(args, y, row, token + 8 * first, back,
                          [&](int i) { return quad_of(sums, first + i); });
    }
  });
}

}  // namespace mlxn::tile

#include "ops/matmul/cuda_tile_fused_sm90a.cuh"

namespace mlxn::tile {

/// The parts of a tile's sums in the workspace.
template <class C>
struct Parts {
  static constexpr int kQuads = C::kSums / 4;
  float4* first;  // this thread's

  __device__ __forceinline__ Parts(const HopperTileArgs& args, const Place& me)
      : first(reinterpret_cast<float4*>(args.workspace.ptr) +
              std::size_t(tile()) * gridDim.z * kQuads * C::kRowThreads + me.thread) {}
  static __device__ __forceinline__ std::uint32_t tile() { return blockIdx.y * gridDim.x + blockIdx.x; }

  /// Leaves this block's part; whether that is the last one, which then adds them up.
  __device__ __forceinline__ bool leave(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                        const Place& me, volatile std::uint32_t* is_last) const {
    float4* own = first + std::size_t(blockIdx.z) * kQuads * C::kRowThreads;
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) __stcg(own + quad * C::kRowThreads, quad_of(sums, quad));
    __threadfence();
    sm90::named_barrier(2, C::kRowThreads);
    if (me.thread == 0) {
      const bool last = atomicAdd(args.counters.ptr + tile(), 1u) + 1 == gridDim.z;
      if (last) args.counters.ptr[tile()] = 0;  // as the next product wants it
      *is_last = last;
      __threadfence();
    }
    sm90::named_barrier(2, C::kRowThreads);
    return *is_last != 0;
  }
  /// Quads begin .. begin + kCount - 1 of all parts.
  template <int kCount>
  __device__ __forceinline__ void add(float4 (&totals)[kCount], int begin) const {
#pragma unroll
    for (float4& total : totals) total = make_float4(0, 0, 0, 0);
#pragma unroll 2
    for (std::uint32_t part = 0; part < gridDim.z; ++part) {
      const float4* from = first + (std::size_t(part) * kQuads + begin) * C::kRowThreads;
#pragma unroll
      for (int i = 0; i < kCount; ++i) totals[i] = plus(totals[i], __ldcg(from + i * C::kRowThreads));
    }
  }
};

/// Sums over a part of k: leaves them in the workspace; the block that comes last adds all parts and stores.
template <class C>
__device__ __forceinline__ void finish_part(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                            std::uint32_t row, std::uint32_t token, const Place& me,
                                            volatile std::uint32_t* is_last) {
  constexpr int kQuads = Parts<C>::kQuads, kBatch = kQuads < 8 ? kQuads : 8;
  const Parts<C> parts(args, me);
  if (!parts.leave(sums, args, me, is_last)) return;
  const float2 back = back_of<C>(args, row);
  with_y_type(args, [&](auto y) {
#pragma unroll 1
    for (int done = 0; done < kQuads; done += kBatch) {
      float4 totals[kBatch];
      parts.add(totals, done);
      store_quads<kBatch>(args, y, row, token + 8 * done, back, [&](int i) { return totals[i]; });
    }
  });
}

/// The two blocks of a cluster hold sums over half of k each, and each has the tokens that it finishes in the
/// first half of its sums: it sends the second half to the other and gets, in `memory`, what it adds.
template <class C>
__device__ __forceinline__ void exchange_pair(const float (&sums)[C::kSums], const Place& me,
                                              std::uint32_t shared) {
  constexpr int kQuads = C::kSums / 8;  // sent, and kept
  sm90::cluster_sync();                 // both blocks have read their last stage
  const std::uint32_t remote = sm90::cluster_address(shared + me.thread * 16, (blockIdx.x & 1) ^ 1);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const float4 v = quad_of(sums, quad + kQuads);
    sm90::cluster_store(remote + quad * C::kRowThreads * 16, v.x, v.y, v.z, v.w);
  }
  sm90::cluster_sync();
}
template <class C>
__device__ __forceinline__ void finish_pair(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                            std::uint32_t row, std::uint32_t token, const Place& me,
                                            std::uint32_t shared, const float4* memory) {
  exchange_pair<C>(sums, me, shared);
  token += (blockIdx.x & 1) * (C::kTokens / 2);
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  const float2 back = back_of<C>(args, row);
  with_y_type(args, [&](auto y) {
    store_quads<C::kSums / 8>(args, y, row, token, back, [&](int quad) {
      return plus(quad_of(sums, quad), memory[quad * C::kRowThreads + me.thread]);
    });
  });
}

/// A tile whose product is not yet y. The block has no other one.
template <class C>
__device__ __forceinline__ void finish_fused(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                             const Item& item, const Place& me, std::uint32_t shared,
                                             float4* memory) {
  constexpr int kQuads = C::kSums / 4;
  std::uint32_t row = weight_row<C>(args, item, me), token = item.token_tile * C::kTokens;
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  const TileMemory<C> tile(memory);
  if constexpr (C::kForm == Form::pair) {
    exchange_pair<C>(sums, me, shared);
    token += (blockIdx.x & 1) * (C::kTokens / 2);
    tile.template put<kQuads / 2>(me, 0, back_of<C>(args, row), [&](int quad) {
      return plus(quad_of(sums, quad), memory[quad * C::kRowThreads + me.thread]);
    });
  } else if (C::kForm == Form::parts && gridDim.z > 1) {
    constexpr int kBatch = kQuads < 8 ? kQuads : 8;
    const Parts<C> parts(args, me);
    if (!parts.leave(sums, args, me, reinterpret_cast<volatile std::uint32_t*>(memory))) return;
    const float2 back = back_of<C>(args, row);
    sm90::named_barrier(2, C::kRowThreads);  // all have read the flag
#pragma unroll 1
    for (int done = 0; done < kQuads; done += kBatch) {
      float4 totals[kBatch];
      parts.add(totals, done);
      tile.template put<kBatch>(me, 8 * done, back, [&](int i) { return totals[i]; });
    }
  } else {
    const float2 back = back_of<C>(args, row);
    sm90::named_barrier(2, C::kRowThreads);  // all have read their last stage
    tile.template put<kQuads>(me, 0, back, [&](int quad) { return quad_of(sums, quad); });
  }
  sm90::named_barrier(2, C::kRowThreads);
  FusedStore<C>{args, tile.tile, me.thread, item.row_tile, token}.run();
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
    if constexpr (C::kIsFew) {
      multiply_few<C, kGroup>(sums, args, shared, reinterpret_cast<const unsigned char*>(memory), w_ring,
                              shared + C::kSummed, item, me);
    } else if constexpr (C::kByRecord) {
      multiply_by_record<C>(sums, args, shared, x_ring, w_ring, x_at, w_at, item, me);
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
    if constexpr (kGroup == 0) {
      sm90::dependency_wait();  // the kernel before may still read or write y and the workspace
      const std::uint32_t row = item.row_tile * C::kRows + me.row;
      const std::uint32_t token = item.token_tile * C::kTokens + me.token;
      if (is_fused(args)) {
        finish_fused<C>(sums, args, item, me, shared, memory);
      } else if constexpr (C::kForm == Form::pair) {
        finish_pair<C>(sums, args, row, token, me, shared, memory);
      } else if constexpr (C::kForm == Form::parts) {
        if (gridDim.z == 1)
          store_tile<C>(sums, args, row, token);
        else
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
    if (shared % 1024 != 0) __trap();  // the swizzle and the descriptors count from multiples of 1024
    if (C::kShape.look_up && table_of<C>(shared) + PairTable::kBytes > shared + C::kEnd) __trap();
    if constexpr (!C::kIsFew) x_ring.init(4 * C::kShape.row_groups);
    w_ring.init(4 * C::kShape.row_groups, C::kIsFew ? 2 : 1);
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
  if constexpr (C::kShape.look_up) {
    if (threadIdx.x >= 32) make_table<C>(shared);
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
  // a trap and leads nowhere. Of a cluster no block ends while the other may still write to it.
  if constexpr (C::kHasCluster)
    sm90::cluster_sync();
  else
    __syncthreads();
#endif
}

}  // namespace mlxn::tile
