// Where a thread is in a ring of stages.
#pragma once

#include <cstdint>

namespace mlxn::sm90 {

/// Position in a ring of stages: slot, and the parity of the phase that fills it next.
struct RingPosition {
  std::uint32_t slot = 0;
  std::uint32_t parity = 0;

  /// kBy divides `stages`: all that take stages by turns of kBy have slots of their own.
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
