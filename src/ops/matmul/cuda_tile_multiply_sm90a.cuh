// Of cuda_tile_sm90a.cuh: the consumers that multiply by instructions of a warpgroup. They differ in how A comes to
// be: made whole from records, whole numbers with sums by record, read from shared memory as it is, or bf16 to f16.
#pragma once

#include <cstdint>

#include "cuda_blocks/mma.cuh"
#include "cuda_blocks/wgmma.cuh"
#include "ops/matmul/cuda_tile_config_sm90a.cuh"
#include "ops/matmul/cuda_tile_reader_sm90a.cuh"

namespace mlxn::tile {

template <int kCount>
__device__ __forceinline__ void clear(float (&sums)[kCount]) {
#pragma unroll
  for (float& sum : sums) sum = 0.0f;
}
/// Whether there is nothing to multiply: then the sums are zero. A tile whose k is not divided has steps, and that it
/// is asked for nothing keeps the compiler from clearing its sums.
template <class C>
__device__ __forceinline__ bool is_empty(float (&sums)[C::kSums], std::uint32_t begin, std::uint32_t end) {
  if (C::kForm == Form::tiles || begin < end) return false;
  if constexpr (C::kSetsSums) clear(sums);
  return true;
}

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
  SharedInRow<C::kFetchesScales ? F::kSharedWords : 0> share;
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
        record + w_at.slot * C::kWBytes, table_of<C>(shared, me.lane)};
    raw = F::load(reader, F::planes(kHalf), me.lane);
    if constexpr (kHalf == 0) own = F::own(reader, F::kRowsAt, me.lane, scaling);
    share.template fetch<kHalf>(own, ShareInRow{me.lane});
  };
  // Frees it, once both planes of fragments are made: only then do all loads have their data for certain. An
  // arrival does not wait for loads (it is issued while they are under way, and orders what threads do with
  // memory, not what copies do), and a copy into the stage overtook them where matrix instructions of many
  // tokens held them up.
  auto free_weights = [&] {
    __syncwarp();
    free_stage(w_ring, w_at.slot, me);
    w_at.template advance<kTurn>(C::kWStages);
  };

  const std::uint32_t first = item.begin + kGroup;
  if (is_empty<C>(sums, first, item.end)) return;
  std::uint32_t before = 0;  // the stage of x that the group of instructions started last still reads
  // A step of 128 k; kNext: the half of a record that the next step takes.
  auto multiply_step = [&]<int kHalf, int kNext>(std::uint32_t step, Half<kHalf>, Half<kNext> next) {
    F::template unpack<kHalf, 0>(raw, own, scaling, share, even);
    [[maybe_unused]] const std::uint32_t even_slot = x_at.slot;
    sm90::barrier_wait(x_ring.full(x_at.slot), x_at.parity);
    start_plane<C>(sums, even, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes), !C::kSetsSums || kHalf == 1 || step > first);
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
    x_at.template advance<kTurn>(C::kXStages);
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

/// The same where sums are kept by record: d times the sums of whole numbers, less m times those of minimums. Of two
/// groups each has every other record.
template <class C, int kGroup>
__device__ __forceinline__ void multiply_by_record(float (&sums)[C::kSums], const HopperTileArgs& args,
                                                   std::uint32_t shared,
                                                   sm90::StageBarriers<C::kXStages> x_ring,
                                                   sm90::StageBarriers<C::kWStages> w_ring,
                                                   sm90::RingPosition& x_at, sm90::RingPosition& w_at,
                                                   const Item& item, const Place& me) {
  using F = typename C::Format;
  using Record = ByRecord<F>;
  constexpr bool kAdds = Record::kAdds;
  constexpr std::uint32_t kToNext = 2 * C::kKGroups - 1;  // stages from a record's second half to the next record
  SharedInRow<C::kFetchesScales ? Record::kSharedWords : 0> share;
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
        record + w_at.slot * C::kWBytes, table_of<C>(shared, me.lane)};
    raw = Record::load(reader, F::planes(kHalf), me.lane);
    if constexpr (kHalf == 0) own = Record::own(reader, F::kRowsAt, me.lane);
    share.template fetch<kHalf>(own, ShareInRow{me.lane});
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
  const std::uint32_t first = item.begin + 2 * kGroup;
  std::uint32_t before = 0;  // the stage of x that the group of instructions started last still reads
  auto multiply_step = [&]<int kHalf>(std::uint32_t step, Half<kHalf>) {
    Record::template unpack<kHalf, 0>(raw, own, share, even);
    if constexpr (kHalf == 0) {
      add_record();
      factors = Record::factors(own);
      if (step > first) free_stage(x_ring, before, me);
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
    x_at.template advance<kHalf == 0 ? 1 : kToNext>(C::kXStages);
    // All loads have ended, see above.
    __syncwarp();
    free_stage(w_ring, w_at.slot, me);
    w_at.template advance<kHalf == 0 ? 1 : kToNext>(C::kWStages);
    if constexpr (kHalf == 0)
      read(Half<1>{});
    else if (step + kToNext < item.end)
      read(Half<0>{});
    sm90::wgmma::wait<1>();
  };
  if (first >= item.end) return;
  read(Half<0>{});
#pragma unroll 1
  for (std::uint32_t step = first; step < item.end; step += 1 + kToNext) {
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
  if (is_empty<C>(sums, item.begin, item.end)) return;
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
                                                    sm90::wgmma::advance(x, k16 * 32),
                                                !C::kSetsSums || plane == 1 || k16 > 0 || step > item.begin);
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
  if (is_empty<C>(sums, item.begin, item.end)) return;
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
    start_plane<C>(sums, even, sm90::wgmma::advance(x_tile, x_at.slot * C::kXBytes), !C::kSetsSums || step > item.begin);
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

}  // namespace mlxn::tile
