#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/emulator.h"
#include "simt/fibers.h"
#include "simt/memory.h"

namespace mlxn::simt {

inline constexpr std::uint32_t kMaxThreads = 1024;
inline constexpr std::uint32_t kMaxSimdGroups = kMaxThreads / gpu::kSimdWidth;

/// What threads do together.
enum class Meeting : std::uint8_t { none, barrier, simd_barrier, shuffle, ballot };

/// A place in the source.
struct Site {
  int line = 0;
  const char* file = "";
};

struct KernelThread {
  Context context = nullptr;
  Meeting waits_at = Meeting::none;
  bool ended = false;
  Site site;               ///< of the meeting
  std::uint32_t given = 0;  ///< to the meeting
  std::uint32_t from = 0;   ///< lane whose value it wants
  std::uint32_t received = 0;
};

/// Runs launches, one group of threads after the other. Every host thread has one, so that launches of different host threads
/// do not meet. The functions below `kernel threads` run on the fibers of these.
class Machine {
 public:
  Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  [[nodiscard]] Result<void> run(const LaunchInfo& launch, std::uint64_t seed);

  // ---- kernel threads
  void barrier(Site site);
  /// A meeting of the SIMD-group; what this thread receives.
  std::uint32_t meet(Meeting meeting, std::uint32_t given, std::uint32_t from, Site site);
  /// Ends the launch.
  [[noreturn]] void fail(const AccessFault& fault);

 private:
  struct SimdGroup {
    Stamp clock = 0;
    std::uint32_t arrived = 0;  ///< lanes at their meeting
    std::uint32_t first = 0;    ///< the first of these
  };
  /// A meeting that another thread does not come to, or comes to elsewhere.
  struct MeetingFault {
    std::uint32_t thread = 0, other = 0;
  };

  [[nodiscard]] Result<void> prepare(const LaunchInfo& launch, std::uint64_t seed);
  [[nodiscard]] Result<void> run_group(std::uint32_t number);
  void start_group(std::uint32_t number);
  void run_round();
  [[nodiscard]] MeetingFault stuck() const;

  static void thread_entry();
  [[noreturn]] void run_thread();
  /// Lets the next thread of the round run, or the host where there is none; returns when this one's turn comes again.
  void pass_on(Context& self);
  Context enter(std::uint32_t thread);
  /// Runs the others; this thread's turn does not come again.
  [[noreturn]] void leave();
  /// As leave(), and the others' turns do not come either.
  [[noreturn]] void abandon();
  void wake(std::uint32_t thread);
  void arrive(Meeting meeting, std::uint32_t self, Site site, std::uint32_t first, bool is_first);
  [[noreturn]] void fail(const MeetingFault& fault);
  /// Notes that a clock has moved on.
  void moved_on(Stamp clock);

  std::uint64_t random() noexcept;
  void shuffle(std::uint32_t* values, std::size_t count) noexcept;

  // What went wrong, in words (report.cpp).
  [[nodiscard]] Error report() const;
  [[nodiscard]] std::string describe(const AccessFault& fault) const;
  [[nodiscard]] std::string describe(const MeetingFault& fault) const;
  [[nodiscard]] std::string describe_race(const AccessFault& fault) const;
  [[nodiscard]] std::string out_of_range(const AccessFault& fault) const;
  [[nodiscard]] std::string place(std::uintptr_t address, Operation operation) const;
  [[nodiscard]] std::string name(std::uint32_t group) const;

  Memory memory_;
  std::array<KernelThread, kMaxThreads> threads_;
  std::array<SimdGroup, kMaxSimdGroups> simd_groups_;
  std::array<std::uint32_t, kMaxThreads> lists_[2];
  std::uint32_t* round_ = lists_[0].data();  ///< threads that are ready, in the order of their turns
  std::uint32_t* woken_ = lists_[1].data();  ///< those of the next round
  std::uint32_t round_count_ = 0, round_next_ = 0, woken_count_ = 0;
  std::uint32_t ended_ = 0, at_barrier_ = 0, first_at_barrier_ = 0;
  Stamp latest_ = 0;  ///< no clock shows more
  Context host_ = nullptr, forgotten_ = nullptr;

  LaunchInfo launch_;
  gpu::uint3 group_{};
  std::uint64_t random_ = 0;
  std::vector<std::uint32_t> order_;  ///< of the groups
  std::vector<Stamp> starts_;         ///< of the groups run so far
  std::vector<std::byte> shared_;

  /// clock: there are no stamps left.
  enum class Failure : std::uint8_t { none, access, meeting, clock } failure_ = Failure::none;
  AccessFault access_fault_;
  MeetingFault meeting_fault_;

  Stacks stacks_;
};

/// The machine whose kernel runs on this host thread; null if none does.
extern constinit thread_local Machine* running_machine;

}  // namespace mlxn::simt
