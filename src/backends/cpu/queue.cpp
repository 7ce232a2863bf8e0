#include "backends/cpu/queue.h"

#include <system_error>

#include "base/error.h"

namespace mlxn::cpu {
namespace {

/// A kernel that waits for work would wait for itself.
Result<void> check_outside(std::string_view what) {
  if (Team::inside()) return make_error(ErrorCode::wrong_state, "{}: called by a kernel that is running", what);
  return {};
}

}  // namespace

CpuQueue::~CpuQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (alive_) alive_->store(false);
  }
  changed_.notify_all();
  if (!lane_.joinable()) return;
  if (lane_.get_id() == std::this_thread::get_id()) {
    lane_.detach();  // the lane itself dropped the last handle; it leaves without touching the queue again
  } else {
    lane_.join();
  }
}

Result<std::shared_ptr<SubmissionImpl>> CpuQueue::submit(std::shared_ptr<CommandList>&& list, bool will_wait) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<SubmissionImpl>> {
    MLXN_CHECK(check_outside("commit"));
    if (auto error = take_sticky_error()) return *error;
    auto submission = std::make_shared<SubmissionImpl>(*list, shared_from_this());
    std::unique_lock lock(mutex_);
    const auto limit = static_cast<std::size_t>(device_.options.max_in_flight);
    while (pending_.size() + (current_ && !is_releasing() ? 1 : 0) >= limit) {
      if (device_.options.busy_when_full) {
        return make_error(ErrorCode::busy, "cpu: {} submissions are unfinished, the limit is {}", limit, limit);
      }
      if (current_) {
        MLXN_CHECK(check_no_release("commit"));
        changed_.wait(lock);
      } else {
        run_and_release_head(lock);
      }
    }
    if (!will_wait) MLXN_CHECK(start_lane());
    pending_.push_back(submission);
    submission->dispatches_encoded = list->recording_graph ? 0 : list->dispatches();
    submission->list_ = std::move(list);
    ++submitted_;
    device_.counters.submissions.fetch_add(1, std::memory_order_relaxed);
    counters.submissions.fetch_add(1, std::memory_order_relaxed);
    if (!will_wait) changed_.notify_all();
    return submission;
  });
}

std::shared_ptr<SubmissionImpl> CpuQueue::run_head(std::unique_lock<std::mutex>& lock) noexcept {
  current_ = std::move(pending_.front());
  pending_.pop_front();
  SubmissionImpl& submission = *current_;
  submission.status.store(Submission::Status::running, std::memory_order_relaxed);
  auto& list = static_cast<CpuCommandList&>(*submission.list_);
  lock.unlock();
  CpuCommandList::Outcome outcome;
  std::chrono::steady_clock::time_point begin, end;
  {
    const std::lock_guard turn(device_.team_mutex);
    begin = std::chrono::steady_clock::now();
    outcome = list.run(device_.team());
    end = std::chrono::steady_clock::now();
  }
  for (AtomicCounters* sum : {&device_.counters, &counters}) {
    sum->dispatches_executed.fetch_add(outcome.dispatches, std::memory_order_relaxed);
    sum->barriers.fetch_add(outcome.barriers, std::memory_order_relaxed);
  }
  lock.lock();
  std::shared_ptr<CommandList> released = std::move(submission.list_);
  lock.unlock();
  {
    const Releasing here(*this);
    released.reset();  // outside the lock, since what it binds may come to its end
  }
  lock.lock();
  submission.begin = begin;
  submission.end = end;
  submission.dispatches_executed = outcome.dispatches;
  submission.barriers = outcome.barriers;
  if (outcome.error) {
    submission.error = submission.label_.empty() ? std::move(outcome.error) : outcome.error->with_context(submission.label_);
  }
  ++finished_;
  submission.status.store(submission.error ? Submission::Status::failed : Submission::Status::completed,
                          std::memory_order_release);
  if (!submission.callbacks.empty()) list_to_call(current_);
  changed_.notify_all();
  return std::move(current_);
}

void CpuQueue::run_and_release_head(std::unique_lock<std::mutex>& lock) noexcept {
  std::shared_ptr<SubmissionImpl> submission = run_head(lock);
  lock.unlock();
  submission.reset();
  lock.lock();
}

Result<void> CpuQueue::wait(SubmissionImpl& submission, std::optional<std::chrono::steady_clock::time_point> deadline) {
  if (submission.finished()) return {};
  MLXN_CHECK(check_outside("wait"));
  MLXN_CHECK(check_no_release("wait"));
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  if (deadline) {
    // A wait that may give up leaves the work to the lane: whoever has a submission to wait for has started it.
    while (!submission.finished() && changed_.wait_until(lock, *deadline) != std::cv_status::timeout) {
    }
    return {};
  }
  ++waiters_;
  while (!submission.finished()) {
    if (current_) {
      changed_.wait(lock);
    } else {
      run_and_release_head(lock);
    }
  }
  --waiters_;
  if (waiters_ == 0 && !pending_.empty()) changed_.notify_all();
  return {};
}

void CpuQueue::drain(std::unique_lock<std::mutex>& lock) noexcept {
  const std::uint64_t target = submitted_;
  while (finished_ < target) {
    if (current_) {
      changed_.wait(lock);
    } else {
      run_and_release_head(lock);
    }
  }
}

Result<void> CpuQueue::drain() {
  MLXN_CHECK(check_outside("wait_idle"));
  MLXN_CHECK(check_no_release("wait_idle"));
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  drain(lock);
  return {};
}

Result<void> CpuQueue::wait_unused(const Allocation& allocation) {
  const auto uses = [&](const std::shared_ptr<SubmissionImpl>& submission) {
    return submission && submission->list_ && submission->list_->binds(allocation);
  };
  std::unique_lock lock(mutex_);
  if (!uses(current_) && std::none_of(pending_.begin(), pending_.end(), uses)) return {};
  MLXN_CHECK(check_outside("map"));
  MLXN_CHECK(check_no_release("map"));
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  drain(lock);
  return {};
}

Result<void> CpuQueue::add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                    std::function<void(const Result<void>&)> done) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    const std::lock_guard lock(mutex_);
    MLXN_CHECK(start_lane());
    submission->callbacks.push_back(std::move(done));
    if (submission->finished()) list_to_call(submission);
    changed_.notify_all();
    return {};
  });
}

void CpuQueue::list_to_call(const std::shared_ptr<SubmissionImpl>& submission) noexcept {
  if (submission->listed_to_call) return;
  submission->listed_to_call = true;
  (first_to_call_ ? last_to_call_->next_to_call : first_to_call_) = submission;
  last_to_call_ = submission.get();
}

Result<void> CpuQueue::start_lane() {
  if (lane_.joinable()) return {};
  auto alive = std::make_shared<std::atomic<bool>>(true);
  try {
    lane_ = std::thread([this, alive] { lane(alive); });
  } catch (const std::system_error& e) {
    return make_error(ErrorCode::out_of_memory, "cpu: the system refused a thread for asynchronous work: {}", e.what());
  }
  alive_ = std::move(alive);
  return {};
}

void CpuQueue::lane(const std::shared_ptr<std::atomic<bool>>& alive) noexcept {
  std::unique_lock lock(mutex_);
  for (;;) {
    // Work waits for the lane only while no thread waits for the work, callbacks always do.
    changed_.wait(lock, [&] { return stop_ || first_to_call_ || (!current_ && waiters_ == 0 && !pending_.empty()); });
    std::shared_ptr<SubmissionImpl> submission;
    if (first_to_call_) {
      submission = std::move(first_to_call_);
      first_to_call_ = std::move(submission->next_to_call);
      submission->listed_to_call = false;
      std::vector<std::function<void(const Result<void>&)>> callbacks;
      callbacks.swap(submission->callbacks);
      lock.unlock();
      for (auto& done : callbacks) {
        try {
          done(submission->result());
        } catch (...) {  // a callback's exception has nowhere to go
        }
        done = nullptr;
      }
    } else if (stop_) {
      return;
    } else {
      submission = run_head(lock);
      lock.unlock();
    }
    submission.reset();
    if (!alive->load()) return;  // that was the last handle of the device: the queue is gone
    lock.lock();
  }
}

}  // namespace mlxn::cpu
