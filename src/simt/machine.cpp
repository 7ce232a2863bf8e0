#include "simt/machine.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "base/error.h"

namespace mlxn::simt {

using gpu::kSimdWidth;

namespace {
/// Clocks stay below it; a launch that gets there has run for days.
constexpr Stamp kLastStamp = 0xfffffff0u;
/// Where the records of earlier launches are thrown away, so that the clocks of one launch have half of all stamps at least.
constexpr Stamp kRestartStamp = 0x80000000u;
/// Words of watched memory whose records are kept for the next launch.
constexpr std::size_t kKeptWords = std::size_t{1} << 22;

bool same(const Site& a, const Site& b) noexcept {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}
}  // namespace

constinit thread_local Machine* running_machine = nullptr;

// ---- the host's side -------------------------------------------------------------------------------------------------

std::uint64_t Machine::random() noexcept {  // splitmix64
  std::uint64_t z = random_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void Machine::shuffle(std::uint32_t* values, std::size_t count) noexcept {
  for (std::size_t i = count; i > 1; --i) std::swap(values[i - 1], values[(random() >> 32) * i >> 32]);
}

Result<void> Machine::prepare(const LaunchInfo& launch, std::uint64_t seed) {
  const auto [x, y, z] = launch.grid;
  if (launch.run == nullptr || launch.threads == 0 || launch.threads > kMaxThreads || launch.threads % kSimdWidth != 0) {
    return make_error(ErrorCode::invalid_argument, "simt: {} threads a group of kernel {}, wanted a multiple of {} up to {}",
                      launch.threads, launch.kernel, kSimdWidth, kMaxThreads);
  }
  const std::uint64_t plane = std::uint64_t{x} * y;
  if (plane == 0 || z == 0 || plane > UINT32_MAX / z) {
    return make_error(ErrorCode::invalid_argument, "simt: a grid of {} x {} x {} groups for kernel {}, wanted 1 to 2^32 - 1 in all", x, y,
                      z, launch.kernel);
  }
  launch_ = launch;
  random_ = seed;
  failure_ = Failure::none;
  const std::uint64_t groups = plane * z;
  order_.resize(groups);
  for (std::uint32_t i = 0; i < groups; ++i) order_[i] = i;
  shuffle(order_.data(), groups);
  starts_.clear();
  starts_.reserve(groups);

  shared_.resize(launch.shared_bytes + 64);
  const auto unaligned = reinterpret_cast<std::uintptr_t>(shared_.data());
  memory_.shared = {(unaligned + 63) / 64 * 64, launch.shared_bytes};
  memory_.args = {reinterpret_cast<std::uintptr_t>(launch.args), launch.args_bytes};
  if (latest_ > kRestartStamp) {
    memory_.shared_shadow_memory.clear();
    memory_.global_shadow_memory.clear();
    latest_ = 0;
  }
  memory_.now.launch = ++latest_;
  MLXN_CHECK(memory_.map(launch.ranges));
  if (!memory_.shared_shadow_memory.reserve((launch.shared_bytes + 3) / 4 + 1) || !stacks_.reserve(launch.threads)) {
    return make_error(ErrorCode::out_of_memory, "simt: no memory for a group of {} threads with {} shared bytes", launch.threads,
                      launch.shared_bytes);
  }
  memory_.shared_shadow = memory_.shared_shadow_memory.at(0);
  return {};
}

Result<void> Machine::run(const LaunchInfo& launch, std::uint64_t seed) {
  MLXN_CHECK(prepare(launch, seed));
  running_machine = this;
  Result<void> result;
  for (const std::uint32_t number : order_) {
    result = run_group(number);
    if (!result) break;
  }
  running_machine = nullptr;
  if (memory_.global_shadow_memory.words() > kKeptWords) memory_.global_shadow_memory.clear();
  return result;
}

void Machine::start_group(std::uint32_t number) {
  const std::uint32_t plane = launch_.grid.x * launch_.grid.y;
  group_ = {number % launch_.grid.x, number % plane / launch_.grid.x, number / plane};
  std::memset(reinterpret_cast<void*>(memory_.shared.begin), 0xff, memory_.shared.bytes);
  const Stamp start = ++latest_;
  if (start >= kLastStamp) failure_ = Failure::clock;
  starts_.push_back(start);
  memory_.now.group = memory_.now.barrier = start;
  for (std::uint32_t i = 0; i < launch_.threads / kSimdWidth; ++i) simd_groups_[i] = {start, 0, 0};
  for (std::uint32_t i = 0; i < launch_.threads; ++i) {
    threads_[i] = {};
    threads_[i].context = make_context<&Machine::thread_entry>(stacks_, i);
    woken_[i] = i;
  }
  woken_count_ = launch_.threads;
  ended_ = at_barrier_ = 0;
}

Result<void> Machine::run_group(std::uint32_t number) {
  start_group(number);
  while (failure_ == Failure::none && woken_count_ != 0) {
    run_round();
    if (failure_ == Failure::none && woken_count_ == 0 && ended_ != launch_.threads) {
      failure_ = Failure::meeting;
      meeting_fault_ = stuck();
    }
  }
  if (failure_ == Failure::none) return {};
  return report();
}

void Machine::run_round() {
  std::swap(round_, woken_);
  round_count_ = std::exchange(woken_count_, 0);
  round_next_ = 0;
  shuffle(round_, round_count_);
  memory_of_kernel = &memory_;
  switch_to(enter(round_[round_next_++]), host_);
}

/// Called when all threads wait or have ended, but no meeting is complete.
Machine::MeetingFault Machine::stuck() const {
  for (std::uint32_t i = 0; i < launch_.threads / kSimdWidth; ++i) {
    if (simd_groups_[i].arrived == 0) continue;
    for (std::uint32_t other = i * kSimdWidth;; ++other) {
      if (threads_[other].ended || threads_[other].waits_at == Meeting::barrier) return {simd_groups_[i].first, other};
    }
  }
  std::uint32_t other = 0;
  while (!threads_[other].ended) ++other;
  return {first_at_barrier_, other};
}

// ---- kernel threads ----------------------------------------------------------------------------------------------------

Context Machine::enter(std::uint32_t thread) {
  memory_.stack = stacks_.at(thread);
  memory_.now.thread = thread;
  memory_.now.moment = simd_groups_[thread / kSimdWidth].clock;
  return threads_[thread].context;
}

void Machine::pass_on(Context& self) {
  Context to = host_;
  if (round_next_ < round_count_) {
    to = enter(round_[round_next_++]);
  } else {
    memory_of_kernel = nullptr;
  }
  switch_to(to, self);
}

void Machine::leave() {
  for (;;) pass_on(forgotten_);
}

void Machine::thread_entry() { running_machine->run_thread(); }

void Machine::run_thread() {
  const std::uint32_t self = memory_.now.thread;
  gpu::Thread thread;
  thread.group = group_;
  thread.groups = {launch_.grid.x, launch_.grid.y, launch_.grid.z};
  thread.index = self;
  launch_.run(launch_.args, thread, reinterpret_cast<void*>(memory_.shared.begin));
  threads_[self].ended = true;
  ++ended_;
  leave();
}

void Machine::wake(std::uint32_t thread) {
  threads_[thread].waits_at = Meeting::none;
  woken_[woken_count_++] = thread;
}

void Machine::arrive(Meeting meeting, std::uint32_t self, Site site, std::uint32_t first, bool is_first) {
  KernelThread& thread = threads_[self];
  thread.waits_at = meeting;
  thread.site = site;
  if (!is_first && (threads_[first].waits_at != meeting || !same(threads_[first].site, site))) fail(MeetingFault{self, first});
}

void Machine::barrier(Site site) {
  const std::uint32_t self = memory_.now.thread;
  if (at_barrier_ == 0) first_at_barrier_ = self;
  arrive(Meeting::barrier, self, site, first_at_barrier_, at_barrier_ == 0);
  if (++at_barrier_ < launch_.threads) return pass_on(threads_[self].context);
  at_barrier_ = 0;
  threads_[self].waits_at = Meeting::none;
  for (std::uint32_t i = 0; i < launch_.threads; ++i) {
    if (i != self) wake(i);
  }
  const Stamp now = latest_ + 1;
  for (std::uint32_t i = 0; i < launch_.threads / kSimdWidth; ++i) simd_groups_[i].clock = now;
  memory_.now.barrier = now;
  moved_on(now);
}

std::uint32_t Machine::meet(Meeting meeting, std::uint32_t given, std::uint32_t from, Site site) {
  const std::uint32_t self = memory_.now.thread;
  SimdGroup& simd = simd_groups_[self / kSimdWidth];
  if (simd.arrived == 0) simd.first = self;
  KernelThread* const lanes = &threads_[self / kSimdWidth * kSimdWidth];
  threads_[self].given = given;
  threads_[self].from = from;
  arrive(meeting, self, site, simd.first, simd.arrived == 0);
  if (++simd.arrived < kSimdWidth) {
    pass_on(threads_[self].context);
    return threads_[self].received;
  }
  simd.arrived = 0;
  switch (meeting) {
    case Meeting::none:
    case Meeting::barrier: break;
    case Meeting::shuffle:
      for (std::uint32_t i = 0; i < kSimdWidth; ++i) lanes[i].received = lanes[lanes[i].from].given;
      break;
    case Meeting::ballot: {
      std::uint32_t bits = 0;
      for (std::uint32_t i = 0; i < kSimdWidth; ++i) bits |= (lanes[i].given & 1) << i;
      for (std::uint32_t i = 0; i < kSimdWidth; ++i) lanes[i].received = bits;
      break;
    }
    case Meeting::simd_barrier:
      moved_on(++simd.clock);
      break;
  }
  threads_[self].waits_at = Meeting::none;
  for (std::uint32_t i = self / kSimdWidth * kSimdWidth; i < (self / kSimdWidth + 1) * kSimdWidth; ++i) {
    if (i != self) wake(i);
  }
  return threads_[self].received;
}

void Machine::moved_on(Stamp clock) {
  memory_.now.moment = clock;
  latest_ = std::max(latest_, clock);
  if (latest_ < kLastStamp) return;
  failure_ = Failure::clock;
  abandon();
}

void Machine::fail(const AccessFault& fault) {
  failure_ = Failure::access;
  access_fault_ = fault;
  abandon();
}

void Machine::fail(const MeetingFault& fault) {
  failure_ = Failure::meeting;
  meeting_fault_ = fault;
  abandon();
}

void Machine::abandon() {
  round_count_ = round_next_ = 0;
  leave();
}

Result<void> run(const LaunchInfo& launch, std::uint64_t seed) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    static thread_local std::unique_ptr<Machine> machine;
    if (!machine) machine = std::make_unique<Machine>();
    return machine->run(launch, seed);
  });
}

}  // namespace mlxn::simt

namespace mlxn::gpu {

void Thread::barrier(int line, const char* file) const { simt::running_machine->barrier({line, file}); }
void Thread::simd_barrier(int line, const char* file) const {
  (void)simt::running_machine->meet(simt::Meeting::simd_barrier, 0, 0, {line, file});
}
std::uint32_t Thread::ballot(bool v, int line, const char* file) const {
  return simt::running_machine->meet(simt::Meeting::ballot, v ? 1 : 0, 0, {line, file});
}
std::uint32_t Thread::exchange(std::uint32_t word, std::uint32_t from, int line, const char* file) const {
  return simt::running_machine->meet(simt::Meeting::shuffle, word, from, {line, file});
}

}  // namespace mlxn::gpu
