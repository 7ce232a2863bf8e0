#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "simt/emulator.h"
#include "simt/shadow.h"

namespace mlxn::simt {

/// Addresses from `begin` on.
struct Extent {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
  [[nodiscard]] bool holds(std::uintptr_t address) const noexcept { return address - begin < bytes; }
  [[nodiscard]] bool holds(std::uintptr_t address, std::size_t count) const noexcept {
    return address - begin < bytes && bytes - (address - begin) >= count;
  }
};

/// A piece of global memory that belongs to the same ranges from its first to its last byte.
struct Segment {
  Extent extent;
  bool readable = false;  ///< it holds something when the launch starts
  bool writable = false;
  Shadow shadow;  ///< if writable, from the word of its first byte on
};

/// A faulty access, noted where it was about to happen.
struct AccessFault {
  enum class Kind : std::uint8_t {
    none,
    out_of_range,  ///< or straddling ranges
    misaligned,
    read_only,  ///< a store
    unwritten,
    race,
  };
  Kind kind = Kind::none;
  Operation operation = Operation::load;
  std::uintptr_t address = 0;
  std::size_t bytes = 0;
  std::uintptr_t at = 0;  ///< the first byte in question
  Conflict conflict;
  std::size_t alignment = 1;  ///< that a misaligned access lacks
};

/// The memory that the running thread may touch, and the shadows of what its launch has touched. The hooks that the compiler
/// calls before loads and stores read it, so what the usual access needs comes first.
struct Memory {
  Extent stack;  ///< of the running thread
  Extent shared;
  Now now;
  const Segment* segments = nullptr;  ///< ascending; [0] is empty
  std::array<std::uint8_t, 64> recent{};  ///< by some bits of an address, the segment that it was in lately
  Extent constants;                       ///< the last piece of the program's constants that was read
  Shadow shared_shadow;
  Extent args;
  std::vector<Segment> segment_list;
  std::span<const Range> ranges;
  std::vector<Extent> all_constants;
  ShadowMemory shared_shadow_memory, global_shadow_memory;

  static std::size_t recent_slot(std::uintptr_t address) noexcept { return (address >> 8 ^ address >> 14) % 64; }

  /// Sets the segments up. out_of_memory, or limit_exceeded where ranges are too many.
  [[nodiscard]] Result<void> map(std::span<const Range> ranges);
  /// The general access: whatever it is, wherever it lies.
  [[nodiscard]] AccessFault check(std::uintptr_t address, std::size_t bytes, Operation operation) noexcept;

 private:
  [[nodiscard]] const Segment* find(std::uintptr_t address) noexcept;
  [[nodiscard]] bool is_constant(std::uintptr_t address, std::size_t bytes) noexcept;
};

/// Of the kernel that this host thread is in; null while it is not in one.
extern constinit thread_local Memory* memory_of_kernel;

}  // namespace mlxn::simt
