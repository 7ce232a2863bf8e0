#pragma once

#include <cstdint>

namespace mlxn {

/// Of how many fork()s since the first call of this this process is the child: another number than before says that threads
/// started then are not here.
[[nodiscard]] std::uint64_t fork_count() noexcept;

}  // namespace mlxn
