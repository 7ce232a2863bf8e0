// Faults of kernels in words.

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "simt/machine.h"

namespace mlxn::simt {
namespace {

std::uintptr_t address_of(const void* pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }
Extent extent(const Range& range) noexcept { return {address_of(range.begin), static_cast<std::size_t>(range.end - range.begin)}; }

std::string_view to_string(Access access) noexcept {
  switch (access) {
    case Access::in: return "in";
    case Access::out: return "out";
    case Access::in_out: return "in_out";
  }
  return "?";
}
std::string_view to_string(Operation operation) noexcept {
  switch (operation) {
    case Operation::load: return "load";
    case Operation::store: return "store";
    case Operation::atomic: return "atomic_add";
  }
  return "?";
}
std::string_view to_string(Meeting meeting) noexcept {
  switch (meeting) {
    case Meeting::none: return "nothing";
    case Meeting::barrier: return "barrier";
    case Meeting::simd_barrier: return "simd_barrier";
    case Meeting::shuffle: return "shuffle";
    case Meeting::ballot: return "ballot";
  }
  return "?";
}

std::string bytes(std::size_t count) { return count == 1 ? "1 byte" : fmt::format("{} bytes", count); }
std::string name(const Range& range) {
  return fmt::format("binding {} ({}, {})", range.binding, to_string(range.access), bytes(extent(range).bytes));
}
std::string meeting_of(const KernelThread& thread) {
  std::string_view file = thread.site.file;
  file.remove_prefix(file.find_last_of('/') + 1);  // npos + 1 is 0
  return fmt::format("{} of {}:{}", to_string(thread.waits_at), file, thread.site.line);
}

/// How far an access reaches out of memory that it does not meet or leaves.
struct Distance {
  std::size_t bytes = SIZE_MAX;
  bool before = false;
};
Distance distance(const Extent& extent, std::uintptr_t address, std::size_t count) noexcept {
  if (address < extent.begin) return {extent.begin - address, true};
  return {address - extent.begin + count - extent.bytes, false};
}

}  // namespace

std::string Machine::name(std::uint32_t group) const {
  const std::uint32_t row = launch_.grid.x, plane = row * launch_.grid.y;
  return fmt::format("({}, {}, {})", group % row, group % plane / row, group / plane);
}

/// Where an address is that some binding or the shared memory holds.
std::string Machine::place(std::uintptr_t address, Operation operation) const {
  if (memory_.shared.holds(address)) {
    return fmt::format("byte {} of shared memory ({})", address - memory_.shared.begin, bytes(memory_.shared.bytes));
  }
  if (memory_.args.holds(address)) return fmt::format("byte {} of the launch struct", address - memory_.args.begin);
  const Range* found = nullptr;
  for (const Range& range : launch_.ranges) {
    if (!extent(range).holds(address)) continue;
    // Where bindings share it, the one that is meant.
    const bool fits = operation == Operation::load ? range.access != Access::out : range.access != Access::in;
    if (found == nullptr || fits) found = &range;
  }
  if (found == nullptr) return fmt::format("address {:#x}", address);
  return fmt::format("byte {} of {}", address - extent(*found).begin, simt::name(*found));
}

std::string Machine::out_of_range(const AccessFault& fault) const {
  const std::string what = fmt::format("{} of {}", to_string(fault.operation), bytes(fault.bytes));
  constexpr std::uintptr_t kNullPage = 4096;
  if (fault.address < kNullPage) {
    return fmt::format("{} at byte {} behind a null pointer (a tensor without elements is bound as one)", what, fault.address);
  }
  if (stacks_.holds(fault.address)) return fmt::format("{} outside the thread's local variables", what);
  Distance nearest = distance(memory_.shared, fault.address, fault.bytes);
  std::string whose = fmt::format("shared memory ({})", bytes(memory_.shared.bytes));
  std::uintptr_t begin = memory_.shared.begin;
  for (const Range& range : launch_.ranges) {
    const Distance d = distance(extent(range), fault.address, fault.bytes);
    const bool holds = extent(range).holds(fault.address);
    if (range.begin == range.end || (!holds && d.bytes >= nearest.bytes)) continue;
    nearest = d;
    whose = simt::name(range);
    begin = address_of(range.begin);
    if (holds) break;
  }
  // Beyond that, it is chance what lies nearest.
  constexpr std::size_t kNear = std::size_t{1} << 24;
  if (nearest.bytes > kNear) {
    return fmt::format("{} at address {:#x}, far from all bindings ({} {} {})", what, fault.address, bytes(nearest.bytes),
                       nearest.before ? "before" : "past the end of", whose);
  }
  if (nearest.before) return fmt::format("{} {} before the begin of {}", what, bytes(nearest.bytes), whose);
  return fmt::format("{} at byte {} of {}: ends {} past its end", what, fault.address - begin, whose, bytes(nearest.bytes));
}

std::string Machine::describe_race(const AccessFault& fault) const {
  const Conflict& conflict = fault.conflict;
  std::string other = fmt::format("thread {}", conflict.thread);
  std::string_view between = "no barrier lies in between";
  if (conflict.stamp < memory_.now.group) {
    const auto after = std::ranges::upper_bound(starts_, conflict.stamp);
    other += fmt::format(" of group {}", name(order_[static_cast<std::size_t>(after - starts_.begin()) - 1]));
    between = "nothing orders the groups of a launch";
  } else if (conflict.thread / gpu::kSimdWidth == memory_.now.thread / gpu::kSimdWidth) {
    between = "no barrier or simd_barrier lies in between";
  }
  std::string_view did = "has loaded from";
  if (conflict.operation == Operation::store) did = "has stored to";
  if (conflict.operation == Operation::atomic) did = "has used atomic_add on";
  return fmt::format("race: {} of {} at {}, which {} {}, and {}", to_string(fault.operation), bytes(fault.bytes),
                     place(fault.at, fault.operation), other, did, between);
}

std::string Machine::describe(const AccessFault& fault) const {
  const std::string what = fmt::format("{} of {}", to_string(fault.operation), bytes(fault.bytes));
  switch (fault.kind) {
    case AccessFault::Kind::none: break;
    case AccessFault::Kind::out_of_range: return out_of_range(fault);
    case AccessFault::Kind::misaligned:
      return fmt::format("misaligned {} at {}: the address is no multiple of {}", what, place(fault.address, fault.operation),
                         fault.alignment);
    case AccessFault::Kind::read_only: {
      const bool bound = std::ranges::any_of(launch_.ranges, [&](const Range& range) { return extent(range).holds(fault.at); });
      if (bound) return fmt::format("{} at {}, which the launch may only read", what, place(fault.at, fault.operation));
      if (memory_.args.holds(fault.at)) return fmt::format("{} at {}", what, place(fault.at, fault.operation));
      return fmt::format("{} at a constant of the program", what);
    }
    case AccessFault::Kind::unwritten:
      return fmt::format("{} at {}, which {} has stored to so far", what, place(fault.at, fault.operation),
                         memory_.shared.holds(fault.at) ? "no thread of the group" : "nothing in this launch");
    case AccessFault::Kind::race: return describe_race(fault);
  }
  return "no fault";
}

std::string Machine::describe(const MeetingFault& fault) const {
  const KernelThread& thread = threads_[fault.thread];
  const KernelThread& other = threads_[fault.other];
  const std::string_view together = thread.waits_at == Meeting::barrier
                                        ? "all threads of a group have to come to the same barrier"
                                        : "all lanes of a SIMD-group have to come to the same one";
  const std::string other_does = other.ended ? "has ended" : fmt::format("is at the {}", meeting_of(other));
  return fmt::format("is at the {}, but thread {} {}; {}", meeting_of(thread), fault.other, other_does, together);
}

Error Machine::report() const {
  const bool meets = failure_ == Failure::meeting;
  const std::uint32_t thread = meets ? meeting_fault_.thread : memory_.now.thread;
  if (failure_ == Failure::clock) {
    return make_error(ErrorCode::limit_exceeded, "simt: kernel {} has more than 2^31 groups and barriers", launch_.kernel);
  }
  return make_error(ErrorCode::device, "simt: kernel {}, group ({}, {}, {}), thread {}: {}", launch_.kernel, group_.x, group_.y, group_.z,
                    thread, meets ? describe(meeting_fault_) : describe(access_fault_));
}

}  // namespace mlxn::simt
