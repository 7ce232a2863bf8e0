#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "backends/cpu/context.h"
#include "mlxn/result.h"

namespace mlxn {

/// Threads that run one job together: the caller as thread 0 and size() - 1 workers. Between jobs the workers spin for a
/// short while, then sleep. A job runs on all of them; they meet in barriers inside it.
class Team {
 public:
  /// Fails with out_of_memory if the system refuses a thread.
  [[nodiscard]] static Result<std::unique_ptr<Team>> create(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] int size() const noexcept { return threads_; }
  /// Runs job(data, thread) on every thread and returns when all have finished. One caller at a time.
  void run(void (*job)(void* data, int thread), void* data) noexcept;
  /// Every thread of the running job waits for the others.
  void barrier() noexcept;
  /// Whether the calling thread is inside a job of any team.
  [[nodiscard]] static bool inside() noexcept;

 private:
  explicit Team(int threads) noexcept : threads_(threads) {}
  void work(int thread) noexcept;

  const int threads_;
  void (*job_)(void*, int) = nullptr;
  void* data_ = nullptr;
  alignas(64) std::atomic<std::uint32_t> job_number_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  alignas(64) std::atomic<std::uint32_t> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
  alignas(64) std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace mlxn
