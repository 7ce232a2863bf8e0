#pragma once

#include <thread>

#include "backends/cuda/command_list.h"
#include "backends/cuda/device.h"
#include "backends/queue_impl.h"

namespace mlxn::cuda {

/// A commit with its events on the stream.
class CudaSubmission final : public SubmissionImpl {
 public:
  CudaSubmission(const CommandList& list, std::shared_ptr<QueueImpl> queue, Events stream_events)
      : SubmissionImpl(list, std::move(queue)), events(stream_events) {}
  ~CudaSubmission() { static_cast<CudaDevice&>(*device_).give_back_events(events); }
  CudaSubmission(const CudaSubmission&) = delete;
  CudaSubmission& operator=(const CudaSubmission&) = delete;

  const Events events;
  const std::chrono::steady_clock::time_point submitted = std::chrono::steady_clock::now();
  std::atomic<std::uint64_t> launched{0};  ///< nodes that are on the stream
  // Guarded by the queue's mutex.
  std::uint64_t number = 0;  ///< 1, 2, 3, ... in its queue
  bool issued = false;       ///< its last event is on the stream
  const CudaCommandList* issuing = nullptr;  ///< the work that a thread is putting on the stream
  std::optional<Error> launch_error;
};

/// A stream. Submissions end in the order of the queue, as soon as anybody looks: whoever waits or polls, or a lane thread
/// that sleeps until the device is done with work that nobody waits for at once, and calls completion callbacks. It is
/// started by the first commit of that kind.
class CudaQueue final : public QueueImpl {
 public:
  /// `keep` is the device, or null for the device's own default queue. The stream is the caller's until own_stream().
  CudaQueue(CudaDevice& device, cudaStream_t stream, std::shared_ptr<CudaDevice> keep)
      : device_(device), keep_(std::move(keep)), stream_(stream) {}
  /// From now on the stream ends with the queue; before anybody else has it.
  void own_stream() noexcept { owns_stream_ = true; }
  ~CudaQueue() override;

  [[nodiscard]] DeviceImpl& device() const noexcept override { return device_; }
  [[nodiscard]] Result<std::shared_ptr<SubmissionImpl>> submit(std::shared_ptr<CommandList>&& list, bool will_wait) override;
  [[nodiscard]] Result<void> wait(SubmissionImpl& submission,
                                  std::optional<std::chrono::steady_clock::time_point> deadline) override;
  [[nodiscard]] Result<void> add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                          std::function<void(const Result<void>&)> done) override;
  [[nodiscard]] Result<void> drain() override;
  void refresh(SubmissionImpl& submission) noexcept override;

  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }
  /// Blocks until no submission made before this call uses the allocation.
  [[nodiscard]] Result<void> wait_unused(const Allocation& allocation);
  /// Ends the submissions whose work has ended; whether there were any.
  bool collect() noexcept;
  /// Adds the names of the work that is on the stream and not known to have ended, each once.
  void add_unfinished(std::vector<std::string>& names);
  /// Makes `other` wait for what was submitted so far.
  [[nodiscard]] Result<void> order_before(cudaStream_t other, cudaEvent_t event);

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;
  /// cudaErrorNotReady after the deadline; a fault that is new; cudaSuccess once the work has ended, or the device is lost.
  [[nodiscard]] cudaError_t wait_event(const CudaSubmission& submission, const Deadline& deadline) const noexcept;
  void wait_issued(CudaSubmission& submission, const Deadline& deadline) noexcept;
  /// Whether finish_head() may be called; gives up `lock` for a while if the device has just failed.
  [[nodiscard]] bool head_has_ended(Lock& lock) noexcept;
  /// Ends the head of the queue, whose work has ended (or failed with the device); `lock` is held before and after, not
  /// while the host does its share. The result may be the last handle of the submission, and through it of the device: the
  /// caller lets it go outside the lock.
  [[nodiscard]] std::shared_ptr<CudaSubmission> finish_head(Lock& lock) noexcept;
  void finish_and_release_head(Lock& lock) noexcept;
  [[nodiscard]] bool is_full() const noexcept;
  /// Waits until the queue is not full, unless that is refused.
  [[nodiscard]] Result<void> make_place();
  [[nodiscard]] Result<void> check_stream() const;
  void list_to_call(const std::shared_ptr<SubmissionImpl>& submission) noexcept;
  [[nodiscard]] Result<void> start_lane();
  void lane(const std::shared_ptr<std::atomic<bool>>& alive) noexcept;

  CudaDevice& device_;
  std::shared_ptr<CudaDevice> keep_;
  const cudaStream_t stream_;
  bool owns_stream_ = false;
  // Held while work goes to the stream: the queue's order is the stream's. Nothing of the user's runs under it, so that
  // submissions, which may hold the last handle of what they bind, end outside of it.
  std::mutex issue_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<CudaSubmission>> pending_;
  bool finishing_ = false;     // a thread is ending the submission that was the head
  std::shared_ptr<SubmissionImpl> first_to_call_;  ///< those with callbacks to run; they keep the queue alive until then
  SubmissionImpl* last_to_call_ = nullptr;
  std::uint64_t submitted_ = 0, finished_ = 0;
  std::uint64_t lane_until_ = 0;  // the last submission that the lane has to see to its end
  bool stop_ = false;
  std::shared_ptr<std::atomic<bool>> alive_;  ///< tells the lane that the queue is gone
  std::thread lane_;
};

}  // namespace mlxn::cuda
