// Where a thread is in a ring of stages.
#pragma once

#include <cstdint>

namespace mlxn::sm90 {

/// Position in a ring of stages: slot, and the parity of the phase that fills it next.
struct RingPosition {
  std::uint32_t slot = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance(std::uint32_t stages) {
    if (++slot == stages) {
      slot = 0;
      parity ^= 1;
    }
  }
};

}  // namespace mlxn::sm90
