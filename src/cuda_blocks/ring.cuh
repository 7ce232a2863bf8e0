// Where a thread is in a ring of stages.
#pragma once

#include <cstdint>

namespace mlxn::sm90 {

/// Position in a ring of stages: slot, and the parity of the phase that fills it next.
struct RingPosition {
  std::uint32_t slot = 0;
  std::uint32_t parity = 0;

  /// By at most `stages`. Where several take stages by turns, the stages of a turn divide `stages`: then each has slots of its own,
  /// and a parity tells one turn of the ring from the next.
  template <std::uint32_t kBy = 1>
  __device__ __forceinline__ void advance(std::uint32_t stages) {
    slot += kBy;
    if (slot >= stages) {
      slot -= stages;
      parity ^= 1;
    }
  }
};

}  // namespace mlxn::sm90
