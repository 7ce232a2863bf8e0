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

template <class F>
class VectorCopy {
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
    RingPosition oldest;
    for (std::uint32_t waited = 0;;) {
      // With more on its way than the memory needs to be busy, x would wait behind it.
      for (; requested_ >= waited + args_.in_flight; ++waited, oldest.advance(args_.stages))
        barrier_wait(barriers_.full + 8 * oldest.slot, oldest.parity);
      // The slot's readers are done with what it held a turn ago; in the first turn nobody reads.
      if (requested_ >= args_.stages && tile_ < part_.n_tiles)
        barrier_wait(barriers_.empty + 8 * fill_.slot, fill_.parity ^ 1);
      if (!request()) break;
    }
  }

 private:
  /// The next stage; false after the last.
  __device__ __forceinline__ bool request() {
    if (tile_ == part_.n_tiles) return false;
    const std::uint32_t count = min(args_.stage_records, part_.records - record_);
    const std::uint32_t bytes = count * F::kRecordBytes;
    const std::uint64_t index =
        static_cast<std::uint64_t>(vector_tile(args_, part_.first_tile + tile_)) * args_.tile_records +
        part_.first + record_;
    const Barrier full = barriers_.full + 8 * fill_.slot;
    barrier_arrive_expect(full, bytes);
    bulk_load(ring_ + fill_.slot * (args_.stage_records * F::kRecordBytes),
              args_.records.ptr + index * F::kRecordBytes, bytes, full, policy_);
    fill_.advance(args_.stages);
    ++requested_;
    record_ += count;
    if (record_ == part_.records) record_ = 0, ++tile_;
    return true;
  }

  const HopperVectorArgs& args_;
  const Part& part_;
  const Barriers& barriers_;
  std::uint32_t ring_;
  std::uint64_t policy_ = 0;
  std::uint32_t tile_ = 0, record_ = 0, requested_ = 0;
  RingPosition fill_;
};

}  // namespace mlxn::sm90
