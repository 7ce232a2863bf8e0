#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "backends/gpu/launch.h"
#include "mlxn/encoder.h"
#include "portable/dialect.h"

namespace mlxn::simt {

/// Memory that a launch may touch, and how.
struct Range {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  Access access = Access::in;
  int binding = 0;  ///< number of the pointer in the launch record, for error texts
};

struct LaunchInfo {
  std::string_view kernel;
  void (*run)(const void* args, const gpu::Thread& thread, void* shared) = nullptr;
  gpu::Grid grid;
  std::uint32_t threads = 0;
  std::uint32_t shared_bytes = 0;
  const void* args = nullptr;  ///< as the kernel sees them, 16-byte aligned
  std::uint32_t args_bytes = 0;
  std::span<const Range> ranges;
};

/// Runs a launch to its end, groups one after the other in an order that `seed` shuffles, the threads of a group in an order
/// that it shuffles anew whenever all of them wait or have ended. The first fault ends the launch: ErrorCode::device with the
/// kernel, the group, the thread and what it did. Faults:
///  - a load or store outside the ranges, shared memory and the thread's own stack (the launch struct and the program's
///    constants may be read), or at an address that is no multiple of the element's size
///  - a store to an `in` range; a load from an `out` range of bytes that the launch has not written
///  - a load from shared memory that nothing has written in this group
///  - a race: two threads touch the same byte, one of them storing, and neither a barrier of their group nor a simd_barrier
///    of their SIMD-group lies in between; in global memory also two threads of different groups. Threads may atomic_add to
///    the same word. Races are found by that rule, not by results, so whatever the order the threads happen to run in.
///  - a barrier that some threads of the group do not reach, or that they reach at different places of the source; a
///    collective or simd_barrier that some lanes of the SIMD-group do not reach, or reach at different places
/// Shared memory starts as bytes 0xFF. A range that several bindings share may be touched as any of them says.
/// Other errors: invalid_argument (threads that are no multiple of kSimdWidth or more than 1024, an empty grid, 2^32 groups),
/// limit_exceeded (more than 127 ranges), out_of_memory. Host threads may run launches at the same time.
[[nodiscard]] Result<void> run(const LaunchInfo& launch, std::uint64_t seed);

}  // namespace mlxn::simt
