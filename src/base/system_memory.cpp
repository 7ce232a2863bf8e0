#include "base/system_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <new>
#include <optional>
#include <string_view>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace mlxn {
namespace {

constexpr std::uint64_t kMapFrom = std::uint64_t{256} << 10;
constexpr std::uint64_t kHugePagesFrom = std::uint64_t{8} << 20;
constexpr std::uint64_t kPage = 4096;

bool is_mapped(std::uint64_t bytes, std::uint64_t alignment) noexcept { return bytes >= kMapFrom && alignment <= kPage; }

/// A small file of the kernel, read without allocating.
struct SmallFile {
  std::array<char, 8192> text{};
  std::size_t size = 0;
  explicit SmallFile(const char* path) noexcept {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    const ssize_t got = read(fd, text.data(), text.size());
    size = got > 0 ? static_cast<std::size_t>(got) : 0;
    close(fd);
  }
  [[nodiscard]] std::string_view view() const noexcept { return {text.data(), size}; }
};

std::optional<std::uint64_t> number_after(std::string_view text, std::string_view key) noexcept {
  std::size_t at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  at += key.size();
  while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) ++at;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() + at) return std::nullopt;
  return value;
}

}  // namespace

void* system_allocate(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  if (bytes > (std::uint64_t{1} << 62)) return nullptr;
  if (is_mapped(bytes, alignment)) {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    return data;
  }
  void* data = ::operator new(bytes, std::align_val_t{alignment}, std::nothrow);
  if (data != nullptr) std::memset(data, 0, bytes);
  return data;
}

void prefer_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::uint64_t bytes, [[maybe_unused]] std::uint64_t alignment) noexcept {
#if defined(MADV_HUGEPAGE)
  if (is_mapped(bytes, alignment) && bytes >= kHugePagesFrom) madvise(data, bytes, MADV_HUGEPAGE);
#endif
}

void system_free(void* data, std::uint64_t bytes, std::uint64_t alignment) noexcept {
  if (data == nullptr) return;
  if (is_mapped(bytes, alignment)) {
    munmap(data, bytes);
  } else {
    ::operator delete(data, std::align_val_t{alignment});
  }
}

std::uint64_t peak_resident_bytes() noexcept {
#if defined(__linux__)
  // Not getrusage, whose number starts with that of the process which made this one.
  const SmallFile status("/proc/self/status");
  return number_after(status.view(), "VmHWM:").value_or(0) * 1024;
#else
  struct rusage usage = {};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_maxrss) : 0;  // bytes on macOS
#endif
}

SystemMemory system_memory() noexcept {
  SystemMemory memory;
  const SmallFile info("/proc/meminfo");
  if (const auto kib = number_after(info.view(), "MemTotal:")) memory.total_bytes = *kib * 1024;
  if (const auto kib = number_after(info.view(), "MemAvailable:")) memory.available_bytes = *kib * 1024;
  if (memory.total_bytes == 0) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) memory.total_bytes = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
    memory.available_bytes = memory.total_bytes;
  }
  const SmallFile limit("/sys/fs/cgroup/memory.max");
  if (const auto bytes = number_after(limit.view(), "")) {
    memory.total_bytes = std::min(memory.total_bytes, *bytes);
    const SmallFile current("/sys/fs/cgroup/memory.current");
    const std::uint64_t used = number_after(current.view(), "").value_or(0);
    memory.available_bytes = std::min(memory.available_bytes, *bytes > used ? *bytes - used : 0);
  }
  return memory;
}

int usable_cores() noexcept {
  int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    // A core counts once: its first allowed hardware thread stands for it.
    int physical = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      std::array<char, 96> path{};
      std::string_view head = "/sys/devices/system/cpu/cpu", tail = "/topology/thread_siblings_list";
      char* out = std::copy(head.begin(), head.end(), path.data());
      out = std::to_chars(out, path.data() + path.size(), cpu).ptr;
      std::copy(tail.begin(), tail.end(), out);
      const SmallFile siblings(path.data());
      const std::uint64_t first = number_after(siblings.view(), "").value_or(static_cast<std::uint64_t>(cpu));
      const bool first_allowed = first < CPU_SETSIZE && CPU_ISSET(static_cast<int>(first), &allowed);
      if (first == static_cast<std::uint64_t>(cpu) || !first_allowed) ++physical;
    }
    if (physical > 0) cores = physical;
  }
  const SmallFile quota("/sys/fs/cgroup/cpu.max");
  if (const auto limit = number_after(quota.view(), "")) {
    const std::size_t space = quota.view().find(' ');
    const std::uint64_t period =
        space == std::string_view::npos ? 0 : number_after(quota.view().substr(space), "").value_or(0);
    if (period > 0) cores = std::min(cores, static_cast<int>(std::max<std::uint64_t>(1, *limit / period)));
  }
#endif
  return std::max(1, cores);
}

std::uint64_t last_level_cache_bytes() noexcept {
  std::uint64_t best = 0;
  for (const char* path : {"/sys/devices/system/cpu/cpu0/cache/index2/size", "/sys/devices/system/cpu/cpu0/cache/index3/size",
                           "/sys/devices/system/cpu/cpu0/cache/index4/size"}) {
    const SmallFile file(path);
    if (const auto number = number_after(file.view(), "")) {
      const bool mib = file.view().find('M') != std::string_view::npos;
      best = std::max(best, *number << (mib ? 20 : 10));
    }
  }
  return best;
}

}  // namespace mlxn
