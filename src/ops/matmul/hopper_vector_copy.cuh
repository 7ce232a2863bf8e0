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

template <class Shape>
class VectorCopy {
  using F = typename Shape::Format;

 public:
  __device__ __forceinline__ VectorCopy(const HopperVectorArgs& args, const Part& part,
                                        const Barriers& barriers, std::uint8_t* memory)
      : args_(args), part_(part), barriers_(barriers), ring_(shared_address(memory)) {}

  /// Requests that go out before the wait for the kernel before.
  __device__ __forceinline__ void begin() {
    policy_ = policy_read_once();
    while (requested_ < args_.prefetch && request()) {
    }
  }

  /// All others.
  __device__ __forceinline__ void finish() {
    Place oldest;
    for (std::uint32_t waited = 0;;) {
      // With more on its way than the memory needs to be busy, x would wait behind it.
      for (; requested_ >= waited + args_.in_flight; ++waited, advance(oldest))
        barrier_wait(barriers_.full + 8 * slot_of(oldest), oldest.ring.parity);
      // The slot's readers are done with what it held a turn ago; in the first turn nobody reads.
      if (requested_ >= args_.stages && fill_.tile < part_.n_tiles)
        barrier_wait(barriers_.empty + 8 * slot_of(fill_), fill_.ring.parity ^ 1);
      if (!request()) break;
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
    if (!part_.rotates) return place.ring.slot;
    constexpr std::uint32_t kMask = Shape::kTeams - 1;
    return (place.ring.slot & ~kMask) | ((place.ring.slot + place.tile) & kMask);
  }

  /// The next stage; false after the last.
  __device__ __forceinline__ bool request() {
    if (fill_.tile == part_.n_tiles) return false;
    const std::uint32_t stage_bytes = args_.stage_records * F::kRecordBytes;
    const std::uint32_t first = part_.first * F::kRecordBytes + fill_.stage * stage_bytes;
    // Behind a cut record the slot keeps what it held: codes, whose x is zero, and integers times zero add
    // nothing.
    const std::uint32_t end = min(args_.tile_bytes, (part_.first + part_.records) * F::kRecordBytes);
    const std::uint32_t bytes = min(stage_bytes, end - first);
    const std::uint64_t tile = vector_tile(args_, part_.first_tile + fill_.tile);
    const std::uint32_t slot = slot_of(fill_);
    const Barrier full = barriers_.full + 8 * slot;
    barrier_arrive_expect(full, bytes);
    bulk_load(ring_ + slot * stage_bytes, args_.records.ptr + tile * args_.tile_bytes + first, bytes, full,
              policy_);
    advance(fill_);
    ++requested_;
    return true;
  }

  const HopperVectorArgs& args_;
  const Part& part_;
  const Barriers& barriers_;
  std::uint32_t ring_;
  std::uint64_t policy_ = 0;
  std::uint32_t requested_ = 0;
  Place fill_;
};

}  // namespace mlxn::sm90
