#pragma once

#include <thread>

#include "backends/cpu/command_list.h"
#include "backends/cpu/device.h"
#include "backends/queue_impl.h"

namespace mlxn::cpu {

/// A FIFO of submissions. Whoever waits runs the head of the queue itself, as thread 0 of the team; a lane thread does so
/// while nobody waits, and calls completion callbacks. It is started by the first commit that is not waited for at once.
class CpuQueue final : public QueueImpl {
 public:
  /// `keep` is the device, or null for the device's own default queue.
  CpuQueue(CpuDevice& device, std::shared_ptr<CpuDevice> keep) : device_(device), keep_(std::move(keep)) {}
  ~CpuQueue() override;

  [[nodiscard]] DeviceImpl& device() const noexcept override { return device_; }
  [[nodiscard]] Result<std::shared_ptr<SubmissionImpl>> submit(std::shared_ptr<CommandList>&& list, bool will_wait) override;
  [[nodiscard]] Result<void> wait(SubmissionImpl& submission,
                                  std::optional<std::chrono::steady_clock::time_point> deadline) override;
  [[nodiscard]] Result<void> add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                          std::function<void(const Result<void>&)> done) override;
  [[nodiscard]] Result<void> drain() override;
  /// Blocks until no submission made before this call uses the allocation.
  [[nodiscard]] Result<void> wait_unused(const Allocation& allocation);

 private:
  /// Runs the head of the queue; `lock` is held before and after, not while running. The result may be the last handle of
  /// the submission, and through it of the device: the caller lets it go outside the lock.
  [[nodiscard]] std::shared_ptr<SubmissionImpl> run_head(std::unique_lock<std::mutex>& lock) noexcept;
  /// The same for callers that keep the queue alive by themselves.
  void run_and_release_head(std::unique_lock<std::mutex>& lock) noexcept;
  void drain(std::unique_lock<std::mutex>& lock) noexcept;
  void list_to_call(const std::shared_ptr<SubmissionImpl>& submission) noexcept;
  [[nodiscard]] Result<void> start_lane();
  void lane(const std::shared_ptr<std::atomic<bool>>& alive) noexcept;

  CpuDevice& device_;
  std::shared_ptr<CpuDevice> keep_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<SubmissionImpl>> pending_;
  std::shared_ptr<SubmissionImpl> current_;  ///< the one that runs
  std::shared_ptr<SubmissionImpl> first_to_call_;  ///< those with callbacks to run; they keep the queue alive until then
  SubmissionImpl* last_to_call_ = nullptr;
  std::uint64_t submitted_ = 0, finished_ = 0;
  bool stop_ = false;
  int waiters_ = 0;
  std::shared_ptr<std::atomic<bool>> alive_;  ///< tells the lane that the queue is gone
  std::thread lane_;
};

}  // namespace mlxn::cpu
