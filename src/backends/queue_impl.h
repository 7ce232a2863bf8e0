#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/command_list.h"
#include "backends/device_impl.h"
#include "mlxn/encoder.h"

namespace mlxn {

/// One commit (or replay) of a command list.
class SubmissionImpl {
 public:
  SubmissionImpl(const CommandList& list, std::shared_ptr<QueueImpl> queue)
      : device_(list.device()), queue_(std::move(queue)), label_(list.label()) {}
  ~SubmissionImpl();

  const std::shared_ptr<DeviceImpl> device_;  // outlives queue_, which it owns
  const std::shared_ptr<QueueImpl> queue_;
  const std::string label_;
  std::atomic<Submission::Status> status{Submission::Status::pending};
  // Below: guarded by the queue's mutex until the status is completed or failed, constant afterwards.
  std::shared_ptr<CommandList> list_;  // let go, with all that it binds, before the work counts as completed
  std::uint64_t dispatches_encoded = 0;
  std::optional<Error> error;
  std::chrono::steady_clock::time_point begin, end;
  std::uint64_t dispatches_executed = 0, barriers = 0;
  // Guarded by the queue's mutex.
  std::vector<std::function<void(const Result<void>&)>> callbacks;
  std::shared_ptr<SubmissionImpl> next_to_call;  // in the queue's list of those with callbacks to run
  bool listed_to_call = false;
  std::atomic<bool> observed{false};  ///< somebody has been told of the error

  /// Whether it is known to have completed or failed.
  [[nodiscard]] bool finished() const noexcept {
    const auto s = status.load(std::memory_order_acquire);
    return s == Submission::Status::completed || s == Submission::Status::failed;
  }
  /// The same, but asks the queue first.
  [[nodiscard]] bool done() noexcept;
  [[nodiscard]] Result<void> result() noexcept;
};

/// An in-order lane. Backends derive from it.
class QueueImpl : public std::enable_shared_from_this<QueueImpl> {
 public:
  virtual ~QueueImpl() = default;
  [[nodiscard]] virtual DeviceImpl& device() const noexcept = 0;
  /// Queues the work and takes the list; on failure the list stays with the caller. With `will_wait` the caller waits at
  /// once, so no thread has to be started for it.
  [[nodiscard]] virtual Result<std::shared_ptr<SubmissionImpl>> submit(std::shared_ptr<CommandList>&& list, bool will_wait) = 0;
  /// Blocks until done, or until the deadline. wrong_state from inside a kernel, like drain().
  [[nodiscard]] virtual Result<void> wait(SubmissionImpl& submission,
                                          std::optional<std::chrono::steady_clock::time_point> deadline) = 0;
  [[nodiscard]] virtual Result<void> add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                                  std::function<void(const Result<void>&)> done) = 0;
  /// Blocks until all that was submitted before this call has completed.
  [[nodiscard]] virtual Result<void> drain() = 0;
  /// Brings the submission's status up to date without blocking, where no thread of the library does so by itself.
  virtual void refresh(SubmissionImpl&) noexcept {}

  /// The error of a failed submission whose handles went away unread; handed out once.
  [[nodiscard]] std::optional<Error> take_sticky_error() noexcept;
  void leave_sticky_error(Error error) noexcept;

  AtomicCounters counters;

 protected:
  /// While it lives, this thread lets go of what a submission has bound, and may run deleters of the user.
  class Releasing {
   public:
    explicit Releasing(const QueueImpl& queue) noexcept : queue_(queue), outer_(innermost_) { innermost_ = this; }
    ~Releasing() { innermost_ = outer_; }
    Releasing(const Releasing&) = delete;
    Releasing& operator=(const Releasing&) = delete;

   private:
    friend class QueueImpl;
    const QueueImpl& queue_;
    const Releasing* const outer_;
    static constinit thread_local const Releasing* innermost_;
  };
  /// Whether this is in a deleter that runs as a submission of this queue ends.
  [[nodiscard]] bool is_releasing() const noexcept;
  /// wrong_state if so: a wait for the queue would wait for itself.
  [[nodiscard]] Result<void> check_no_release(std::string_view what) const noexcept;

 private:
  std::mutex sticky_mutex_;
  std::optional<Error> sticky_;
};

}  // namespace mlxn
