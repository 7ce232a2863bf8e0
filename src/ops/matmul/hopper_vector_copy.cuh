// The copying thread of Hopper's few-row kernel: records of the block's tiles, one after the other, to the
// ring.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/bulk.cuh"
#include "cuda_blocks/ptx.cuh"
#include "cuda_blocks/ring.cuh"
#include "ops/matmul/hopper_vector_shape.cuh"

namespace mlxn::sm90 {

/// Where the records of a tile begin that the block has.
template <class F>
__device__ __forceinline__ const std::uint8_t* vector_records(const HopperVectorArgs& args, std::uint32_t first,
                                                              std::uint32_t tile) {
  return args.records.ptr + std::uint64_t{vector_tile(args, tile)} * args.tile_bytes + first * F::kRecordBytes;
}

/// What the copying thread does before anything else happens in the block: the first requests, with their
/// barriers. The sooner they are out, the less the memory has to wait for from one kernel to the next. Where
/// teams rotate they are all of the first tile (the plan), whose stages are in order.
template <class Shape>
__device__ __forceinline__ void vector_copy_first(const HopperVectorArgs& args, const Part& part,
                                                  std::uint8_t* memory) {
  using F = typename Shape::Format;
  const Barrier full = shared_address(memory + args.at.barriers);
  const std::uint32_t count = min(args.prefetch, part.n_tiles * part.stages);
  const std::uint8_t* from = vector_records<F>(args, part.first, part.first_tile);
  std::uint32_t stage = 0, tile = part.first_tile;
  const std::uint64_t policy = policy_read_once();
#pragma unroll 1
  for (std::uint32_t i = 0;;) {
    ++stage;
    const std::uint32_t bytes = stage == part.stages ? part.last_bytes : args.stage_bytes;
    barrier_init(full + 8 * i, 1);
    barrier_init_fence();
    barrier_arrive_expect(full + 8 * i, bytes);
    bulk_load(shared_address(memory) + i * args.stage_bytes, from, bytes, full + 8 * i, policy);
    if (++i == count) break;
    from += args.stage_bytes;
    if (stage == part.stages) from = vector_records<F>(args, part.first, ++tile), stage = 0;
  }
}

/// All others, after the wait for the kernel before.
template <class Shape>
class VectorCopy {
  using F = typename Shape::Format;

 public:
  __device__ __forceinline__ VectorCopy(const HopperVectorArgs& args, const Part& part,
                                        const Barriers& barriers, std::uint8_t* memory)
      : args_(args), part_(part), barriers_(barriers), ring_(shared_address(memory)) {
    fill_.ring.slot = args.prefetch;
    if (args.prefetch == args.stages) fill_.ring.slot = 0, fill_.ring.parity = 1;
    fill_.tile = part.next_tile, fill_.stage = part.next_stage;
    from_ = vector_records<F>(args, part.first, part.first_tile + fill_.tile) + fill_.stage * args.stage_bytes;
    prepare();
    policy_ = policy_read_once();
  }

  __device__ __forceinline__ void run() {
    const std::uint32_t all = part_.n_tiles * part_.stages;
    Place oldest;  // on its way
    for (std::uint32_t requested = args_.prefetch, waited = 0; requested < all; ++requested) {
      // With more on its way than the memory needs to be busy, x would wait behind it.
      for (; requested >= waited + args_.in_flight; ++waited, advance(oldest))
        barrier_wait(barriers_.full + 8 * slot_of(oldest), oldest.ring.parity);
      // The slot's readers are done with what it held a turn ago; in the first turn nobody reads.
      if (requested >= args_.stages) barrier_wait(barriers_.empty + 8 * slot_, fill_.ring.parity ^ 1);
      const Barrier full = barriers_.full + 8 * slot_;
      barrier_arrive_expect(full, bytes_);
      bulk_load(ring_ + slot_ * args_.stage_bytes, from_, bytes_, full, policy_);
      advance(fill_);
      from_ = fill_.stage == 0 ? vector_records<F>(args_, part_.first, part_.first_tile + fill_.tile)
                               : from_ + args_.stage_bytes;
      prepare();
    }
  }

 private:
  /// Of a stage: in the ring, and in the block's tiles.
  struct Place {
    RingPosition ring;
    std::uint32_t tile = 0, stage = 0;
  };
  __device__ __forceinline__ void advance(Place& place) const {
    place.ring.advance(args_.stages);
    if (++place.stage == part_.stages) place.stage = 0, ++place.tile;
  }
  /// The team that has it next finds it in a slot of its own.
  __device__ __forceinline__ std::uint32_t slot_of(const Place& place) const {
    if (part_.rotates == 0) return place.ring.slot;
    constexpr std::uint32_t kMask = Shape::kTeams - 1;
    return (place.ring.slot & ~kMask) | ((place.ring.slot + place.tile) & kMask);
  }

  /// What there is to know of the next request is made before it is waited for: until it is out, less is on its
  /// way than the memory wants.
  __device__ __forceinline__ void prepare() {
    slot_ = slot_of(fill_);
    // Behind a cut record the slot keeps what it held: codes, whose x is zero, and integers times zero add
    // nothing.
    bytes_ = fill_.stage + 1 == part_.stages ? part_.last_bytes : args_.stage_bytes;
  }

  const HopperVectorArgs& args_;
  const Part& part_;
  const Barriers& barriers_;
  std::uint32_t ring_;
  std::uint64_t policy_;
  // Of the next request:
  Place fill_;
  const std::uint8_t* from_;
  std::uint32_t slot_, bytes_;
};

}  // namespace mlxn::sm90
