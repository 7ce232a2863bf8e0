#pragma once

#include <cstdint>

namespace mlxn {

class Team;

/// What a CPU kernel sees of the team that runs it: every thread of the team calls the kernel once, with its own context.
/// Kernels of any instruction set include this header, so its inline code is forced inline and uses no library code: a
/// copy compiled for AVX-512 must never be the one that the linker keeps.
class CpuContext {
 public:
  int thread = 0;   ///< 0 <= thread < threads
  int threads = 1;

  /// Waits until every thread of the team has come here. Every thread must call it equally often.
  void barrier() const noexcept;

  /// 0, 1, 2, ... shared by the team, counted anew for every dispatch (not by barrier()).
  [[gnu::always_inline]] std::uint64_t next_chunk() const noexcept {
    return __atomic_fetch_add(chunks, std::uint64_t{1}, __ATOMIC_RELAXED);
  }

  /// f(begin, end) over [0, total) in chunks of `grain` (> 0), taken by whichever thread is free. Once per dispatch.
  template <class F>
  [[gnu::always_inline]] void for_chunks(std::uint64_t total, std::uint64_t grain, F&& f) const {
    for (;;) {
      const std::uint64_t begin = next_chunk() * grain;
      if (begin >= total) return;
      const std::uint64_t end = total - begin < grain ? total : begin + grain;
      f(begin, end);
    }
  }

  /// This thread's even share [begin, end) of [0, total), in multiples of `unit`.
  struct Share {
    std::uint64_t begin, end;
  };
  [[gnu::always_inline]] Share share(std::uint64_t total, std::uint64_t unit = 1) const noexcept {
    const std::uint64_t units = (total + unit - 1) / unit;
    const auto t = static_cast<std::uint64_t>(thread), n = static_cast<std::uint64_t>(threads);
    std::uint64_t begin = units / n * t + (t < units % n ? t : units % n);
    std::uint64_t end = begin + units / n + (t < units % n ? 1 : 0);
    begin *= unit;
    end *= unit;
    return {begin < total ? begin : total, end < total ? end : total};
  }

  Team* team = nullptr;
  std::uint64_t* chunks = nullptr;
};

}  // namespace mlxn
