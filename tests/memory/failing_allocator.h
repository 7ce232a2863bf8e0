#pragma once

#include <cstdint>

namespace mlxn::test {

enum class FailMode {
  once,     ///< what follows the failure, the error's text included, may allocate
  forever,  ///< every later request fails too
};

/// From now on the k-th request for memory fails (k = 0: the next one); requests by operator new, aligned_alloc and mmap
/// count, of every thread.
void fail_allocation(std::int64_t k, FailMode mode = FailMode::once) noexcept;
/// Ends that. Whether a request failed.
[[nodiscard]] bool allocation_failed() noexcept;
/// Whether it did so by std::bad_alloc, which a call that succeeds cannot have met. Other requests may be optional.
[[nodiscard]] bool allocation_threw() noexcept;
/// Blocks and mappings that this process holds by these functions.
[[nodiscard]] std::int64_t live_blocks() noexcept;

}  // namespace mlxn::test
