#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxn {

/// Zeroed memory from the system, aligned to at least `alignment` (a power of two, at most 1 MiB). Null if there is none.
/// Large blocks are mapped, so that pages cost nothing before their first use.
[[nodiscard]] void* system_allocate(std::uint64_t bytes, std::uint64_t alignment) noexcept;
/// For memory of system_allocate that will be used from end to end: fewer faults and address translations. Memory that fills
/// up slowly, like a KV cache, would be taken and zeroed long before it is used.
void prefer_huge_pages(void* data, std::uint64_t bytes, std::uint64_t alignment) noexcept;
void system_free(void* data, std::uint64_t bytes, std::uint64_t alignment) noexcept;

struct SystemMemory {
  std::uint64_t total_bytes = 0;
  std::uint64_t available_bytes = 0;  ///< what could be allocated without swapping, the cgroup's limit included
};
[[nodiscard]] SystemMemory system_memory() noexcept;

/// The most physical memory that this process has had at once, mapped files included; 0 if unknown.
[[nodiscard]] std::uint64_t peak_resident_bytes() noexcept;

/// The smaller of the physical cores this process may run on and its cgroup's processor quota, at least 1.
[[nodiscard]] int usable_cores() noexcept;
/// Bytes of the last-level cache that one core sees, 0 if unknown.
[[nodiscard]] std::uint64_t last_level_cache_bytes() noexcept;

}  // namespace mlxn
