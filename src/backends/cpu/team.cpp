#include "backends/cpu/team.h"

#include <system_error>

#include "base/error.h"

namespace mlxn {
namespace {

thread_local bool inside_job = false;

// Spinning before sleeping: long enough to bridge the gap between the dispatches of one token and between tokens of a fast
// model, short enough that an idle process uses no processor time. A pause takes 20 to 140 cycles.
constexpr int kSpinsBeforeSleep = 4000;
constexpr int kSpinsBeforeYield = 200;

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

}  // namespace

Result<std::unique_ptr<Team>> Team::create(int threads) {
  return detail::guarded([&]() -> Result<std::unique_ptr<Team>> {
    std::unique_ptr<Team> team(new Team(threads));
    team->workers_.reserve(static_cast<std::size_t>(threads - 1));
    for (int t = 1; t < threads; ++t) {
      try {
        team->workers_.emplace_back([raw = team.get(), t] { raw->work(t); });
      } catch (const std::system_error& e) {
        return make_error(ErrorCode::out_of_memory, "cpu: the system refused thread {} of {}: {}", t + 1, threads, e.what());
      }
    }
    return team;
  });
}

Team::~Team() {
  stop_.store(true, std::memory_order_relaxed);
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool Team::inside() noexcept { return inside_job; }

void Team::run(void (*job)(void*, int), void* data) noexcept {
  const bool outer = inside_job;
  inside_job = true;
  if (threads_ == 1) {
    job(data, 0);
    inside_job = outer;
    return;
  }
  job_ = job;
  data_ = data;
  job_number_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) job_number_.notify_all();
  job(data, 0);
  barrier();
  inside_job = outer;
}

void Team::work(int thread) noexcept {
  inside_job = true;
  std::uint32_t seen = 0;
  for (;;) {
    std::uint32_t now = job_number_.load(std::memory_order_acquire);
    for (int spin = 0; now == seen && spin < kSpinsBeforeSleep; ++spin) {
      pause();
      now = job_number_.load(std::memory_order_acquire);
    }
    while (now == seen) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      job_number_.wait(seen, std::memory_order_seq_cst);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      now = job_number_.load(std::memory_order_acquire);
    }
    seen = now;
    if (stop_.load(std::memory_order_relaxed)) return;
    job_(data_, thread);
    barrier();
  }
}

void Team::barrier() noexcept {
  if (threads_ == 1) return;
  const std::uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<std::uint32_t>(threads_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; ++spin) {
    if (spin < kSpinsBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();  // more threads than free cores: let the late one run
    }
  }
}

void CpuContext::barrier() const noexcept { team->barrier(); }

}  // namespace mlxn
