#pragma once

#include <cstdint>

namespace mlxn::test {

/// From now on the k-th request for memory fails (k = 0: the next one), and only that one; requests by operator new and by
/// mmap count, of every thread.
void fail_allocation(std::int64_t k) noexcept;
/// Ends that. Whether a request failed.
[[nodiscard]] bool allocation_failed() noexcept;

}  // namespace mlxn::test
