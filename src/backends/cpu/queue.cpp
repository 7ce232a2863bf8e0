#include "backends/cpu/queue.h"

#include <system_error>

#include "base/error.h"

namespace mlxn::cpu {

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

Result<std::shared_ptr<SubmissionImpl>> CpuQueue::submit(std::shared_ptr<CommandList> list, bool will_wait) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<SubmissionImpl>> {
    if (auto error = take_sticky_error()) return *error;
    auto submission = std::make_shared<SubmissionImpl>(std::move(list), shared_from_this());
    std::unique_lock lock(mutex_);
    const auto limit = static_cast<std::size_t>(device_.options.max_in_flight);
    while (pending_.size() + (running_ ? 1 : 0) >= limit) {
      if (device_.options.busy_when_full) {
        return make_error(ErrorCode::busy, "cpu: {} submissions are unfinished, the limit is {}", limit, limit);
      }
      if (running_) {
        changed_.wait(lock);
      } else {
        run_and_release_head(lock);
      }
    }
    if (!will_wait) MLXN_CHECK(start_lane());
    pending_.push_back(submission);
    submission->list_->begin_use();
    device_.counters.submissions.fetch_add(1, std::memory_order_relaxed);
    counters.submissions.fetch_add(1, std::memory_order_relaxed);
    if (!will_wait) changed_.notify_all();
    return submission;
  });
}

std::shared_ptr<SubmissionImpl> CpuQueue::run_head(std::unique_lock<std::mutex>& lock) {
  std::shared_ptr<SubmissionImpl> submission = std::move(pending_.front());
  pending_.pop_front();
  running_ = true;
  submission->status.store(Submission::Status::running, std::memory_order_relaxed);
  lock.unlock();
  CpuCommandList::Outcome outcome;
  const auto begin = std::chrono::steady_clock::now();
  {
    const std::lock_guard turn(device_.team_mutex);
    outcome = static_cast<CpuCommandList&>(*submission->list_).run(device_.team());
  }
  const auto end = std::chrono::steady_clock::now();
  submission->list_->end_use();
  for (AtomicCounters* sum : {&device_.counters, &counters}) {
    sum->dispatches_executed.fetch_add(outcome.dispatches, std::memory_order_relaxed);
    sum->barriers.fetch_add(outcome.barriers, std::memory_order_relaxed);
  }
  lock.lock();
  running_ = false;
  submission->begin = begin;
  submission->end = end;
  submission->dispatches_executed = outcome.dispatches;
  submission->barriers = outcome.barriers;
  if (outcome.error) {
    submission->error = submission->list_->label().empty() ? *outcome.error
                                                           : outcome.error->with_context(submission->list_->label());
  }
  submission->status.store(outcome.error ? Submission::Status::failed : Submission::Status::completed,
                           std::memory_order_release);
  if (!submission->callbacks.empty()) {
    for (auto& done : submission->callbacks) calls_.push_back({std::move(done), submission->result()});
    submission->callbacks.clear();
  }
  changed_.notify_all();
  return submission;
}

void CpuQueue::run_and_release_head(std::unique_lock<std::mutex>& lock) {
  std::shared_ptr<SubmissionImpl> submission = run_head(lock);
  lock.unlock();
  submission.reset();
  lock.lock();
}

void CpuQueue::wait(SubmissionImpl& submission, std::optional<std::chrono::steady_clock::time_point> deadline) {
  if (submission.done()) return;
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  ++waiters_;
  while (!submission.done()) {
    if (deadline) {
      if (!lane_.joinable() && !start_lane()) break;
      changed_.notify_all();
      if (changed_.wait_until(lock, *deadline) == std::cv_status::timeout) break;
    } else if (running_) {
      changed_.wait(lock);
    } else {
      run_and_release_head(lock);
    }
  }
  --waiters_;
  if (waiters_ == 0 && !pending_.empty()) changed_.notify_all();
}

void CpuQueue::drain() {
  std::unique_lock lock(mutex_);
  while (running_ || !pending_.empty()) {
    if (running_) {
      changed_.wait(lock);
    } else {
      run_and_release_head(lock);
    }
  }
}

Result<void> CpuQueue::add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                    std::function<void(const Result<void>&)> done) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    std::unique_lock lock(mutex_);
    MLXN_CHECK(start_lane());
    if (submission->done()) {
      calls_.push_back({std::move(done), submission->result()});
    } else {
      submission->callbacks.push_back(std::move(done));
    }
    changed_.notify_all();
    return {};
  });
}

Result<void> CpuQueue::start_lane() {
  if (lane_.joinable()) return {};
  try {
    alive_ = std::make_shared<std::atomic<bool>>(true);
    lane_ = std::thread([this, alive = alive_] { lane(alive); });
  } catch (const std::system_error& e) {
    return make_error(ErrorCode::out_of_memory, "cpu: the system refused a thread for asynchronous work: {}", e.what());
  }
  return {};
}

void CpuQueue::lane(const std::shared_ptr<std::atomic<bool>>& alive) {
  std::unique_lock lock(mutex_);
  for (;;) {
    // Work waits for the lane only while no thread waits for the work, callbacks always do.
    changed_.wait(lock, [&] { return stop_ || !calls_.empty() || (!running_ && waiters_ == 0 && !pending_.empty()); });
    if (!calls_.empty()) {
      Call call = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      try {
        call.done(call.result);
      } catch (...) {  // a callback's exception has nowhere to go
      }
      call = {};
    } else if (stop_) {
      return;
    } else {
      std::shared_ptr<SubmissionImpl> submission = run_head(lock);
      lock.unlock();
      submission.reset();
    }
    if (!alive->load()) return;  // that was the last handle of the device: the queue is gone
    lock.lock();
  }
}

}  // namespace mlxn::cpu
