#include "backends/cuda/queue.h"

#include <algorithm>
#include <system_error>

namespace mlxn::cuda {
namespace {

using Clock = std::chrono::steady_clock;
/// A waiting thread asks again and again for that long, since waking a sleeping one costs tens of microseconds; then it
/// sleeps until the driver wakes it, or for a while if it has a deadline.
constexpr std::chrono::milliseconds kSpin{20};
constexpr std::chrono::microseconds kNap{200};

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

CudaQueue::~CudaQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (alive_) alive_->store(false);
  }
  changed_.notify_all();
  if (lane_.joinable()) {
    if (lane_.get_id() == std::this_thread::get_id()) {
      lane_.detach();  // the lane itself dropped the last handle; it leaves without touching the queue again
    } else {
      lane_.join();
    }
  }
  // Unfinished submissions hold the queue, so nothing of the library's is on the stream.
  if (!owns_stream_) return;
  static_cast<void>(cudaSetDevice(device_.ordinal()));
  static_cast<void>(cudaStreamDestroy(stream_));
  static_cast<void>(cudaGetLastError());
}

// ---- submitting ---------------------------------------------------------------------------------------------------------

Result<void> CudaQueue::check_stream() const {
  if (owns_stream_) return {};
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (const cudaError_t code = cudaStreamIsCapturing(stream_, &status); code != cudaSuccess) {
    return device_.failed("the caller's stream", code);
  }
  if (status == cudaStreamCaptureStatusNone) return {};
  return make_error(ErrorCode::wrong_state, "cuda: the caller's stream is being captured");
}

bool CudaQueue::is_full() const noexcept {
  // What is ending counts, but not for a deleter that this runs: its thread is the one that will end it.
  const std::size_t ending = finishing_ && !is_releasing() ? 1 : 0;
  return pending_.size() + ending >= static_cast<std::size_t>(device_.options.max_in_flight);
}

Result<void> CudaQueue::make_place() {
  Lock lock(mutex_);
  while (is_full()) {
    if (head_has_ended(lock)) {
      finish_and_release_head(lock);
      continue;
    }
    if (device_.options.busy_when_full) {
      return make_error(ErrorCode::busy, "cuda: {} submissions are unfinished, the limit is {}", device_.options.max_in_flight,
                        device_.options.max_in_flight);
    }
    if (finishing_ || !pending_.front()->issued) {  // in the hands of another thread; its event may not be recorded yet
      MLXN_CHECK(check_no_release("commit"));
      changed_.wait(lock);
      continue;
    }
    const std::shared_ptr<CudaSubmission> head = pending_.front();
    lock.unlock();
    wait_issued(*head, std::nullopt);
    lock.lock();
  }
  return {};
}

Result<std::shared_ptr<SubmissionImpl>> CudaQueue::submit(std::shared_ptr<CommandList>&& list, bool will_wait) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<SubmissionImpl>> {
    MLXN_CHECK(device_.use());
    if (auto error = take_sticky_error()) return *error;
    MLXN_CHECK(check_stream());
    auto& work = static_cast<CudaCommandList&>(*list);
    const bool as_graph = work.is_graph();
    if (as_graph) MLXN_CHECK(work.prepare_graph());
    MLXN_TRY(const Events events, device_.take_events());
    std::shared_ptr<CudaSubmission> submission;
    try {
      submission = std::make_shared<CudaSubmission>(*list, shared_from_this(), events);
    } catch (...) {
      device_.give_back_events(events);
      throw;
    }
    std::unique_lock order(issue_mutex_, std::defer_lock);
    for (bool is_placed = false; !is_placed;) {
      MLXN_CHECK(make_place());
      order.lock();
      Lock lock(mutex_);
      if (is_full()) {  // another thread took the place
        lock.unlock();
        order.unlock();
        continue;
      }
      if (!will_wait) MLXN_CHECK(start_lane());
      submission->dispatches_encoded = list->recording_graph ? 0 : list->dispatches();
      submission->number = submitted_ + 1;
      submission->issuing = &work;
      submission->status.store(Submission::Status::running, std::memory_order_relaxed);
      pending_.push_back(submission);
      ++submitted_;
      is_placed = true;
    }
    // From here on the submission ends as one that failed, if it does: some of its work may be on the stream.
    Result<void> result;
    if (const cudaError_t code = cudaEventRecord(events.begin, stream_); code != cudaSuccess) {
      result = device_.failed("the start of a submission", code);
    } else if (as_graph) {
      result = work.launch_graph(stream_);
      if (result) submission->launched.store(work.dispatches(), std::memory_order_relaxed);
    } else {
      result = mlxn::detail::guarded([&] { return work.issue(*this, submission->launched); });
    }
    if (const cudaError_t code = cudaEventRecord(events.end, stream_); code != cudaSuccess) {
      // Without the event the end of the work cannot be seen later: it is waited for here.
      const Error error = device_.failed("the end of a submission", code);
      static_cast<void>(cudaStreamSynchronize(stream_));
      static_cast<void>(cudaGetLastError());
      if (result) result = error;
    }
    {
      const std::lock_guard lock(mutex_);
      submission->issuing = nullptr;
      submission->list_ = std::move(list);
      if (!result) submission->launch_error = result.error();
      submission->issued = true;
      if (!will_wait) lane_until_ = submission->number;
    }
    for (AtomicCounters* sum : {&device_.counters, &counters}) {
      sum->submissions.fetch_add(1, std::memory_order_relaxed);
      if (as_graph) sum->graph_launches.fetch_add(1, std::memory_order_relaxed);
    }
    changed_.notify_all();
    return submission;
  });
}

// ---- ending -------------------------------------------------------------------------------------------------------------

bool CudaQueue::head_has_ended(Lock& lock) noexcept {
  const auto may_end = [&] { return !finishing_ && !pending_.empty() && pending_.front()->issued; };
  if (!may_end()) return false;
  if (device_.lost()) return true;
  const cudaError_t code = query(pending_.front()->events.end);
  if (code == cudaErrorNotReady) return false;
  if (code == cudaSuccess) return true;
  lock.unlock();  // the fault's text is made of all queues' work
  device_.lose(code);
  lock.lock();
  return may_end();
}

void CudaQueue::add_unfinished(std::vector<std::string>& names) {
  const std::lock_guard lock(mutex_);
  for (const auto& submission : pending_) {
    const auto* const work = submission->issuing != nullptr ? submission->issuing : static_cast<const CudaCommandList*>(submission->list_.get());
    if (work != nullptr) work->add_names(submission->launched.load(std::memory_order_relaxed), names);
  }
}

std::shared_ptr<CudaSubmission> CudaQueue::finish_head(Lock& lock) noexcept {
  std::shared_ptr<CudaSubmission> submission = std::move(pending_.front());
  pending_.pop_front();
  finishing_ = true;
  std::optional<Error> error = std::move(submission->launch_error);
  if (device_.lost() && !error) error = device_.take_fault();
  std::shared_ptr<CommandList> list = std::move(submission->list_);
  lock.unlock();
  auto& work = static_cast<CudaCommandList&>(*list);
  if (!error) work.finish();
  float milliseconds = 0;
  if (device_.lost() || cudaEventElapsedTime(&milliseconds, submission->events.begin, submission->events.end) != cudaSuccess) {
    milliseconds = 0;
    static_cast<void>(cudaGetLastError());
  }
  const Clock::time_point now = Clock::now();
  const auto ran = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<float, std::milli>(milliseconds));
  {
    const Releasing here(*this);
    list.reset();  // outside the lock, since what it binds may come to its end
  }
  const std::uint64_t launched = submission->launched.load(std::memory_order_relaxed);
  for (AtomicCounters* sum : {&device_.counters, &counters}) sum->dispatches_executed.fetch_add(launched, std::memory_order_relaxed);
  lock.lock();
  submission->end = now;
  submission->begin = std::max(submission->submitted, now - ran);
  submission->dispatches_executed = launched;
  if (error) submission->error = submission->label_.empty() ? std::move(error) : error->with_context(submission->label_);
  ++finished_;
  finishing_ = false;
  submission->status.store(submission->error ? Submission::Status::failed : Submission::Status::completed, std::memory_order_release);
  if (!submission->callbacks.empty()) list_to_call(submission);
  changed_.notify_all();
  return submission;
}

void CudaQueue::finish_and_release_head(Lock& lock) noexcept {
  std::shared_ptr<CudaSubmission> submission = finish_head(lock);
  lock.unlock();
  submission.reset();
  lock.lock();
}

cudaError_t CudaQueue::wait_event(const CudaSubmission& submission, const Deadline& deadline) const noexcept {
  const Clock::time_point spin_until = Clock::now() + kSpin;
  for (;;) {
    if (device_.lost()) return cudaSuccess;
    cudaError_t code = query(submission.events.end);
    if (code != cudaErrorNotReady) return code;
    const Clock::time_point now = Clock::now();
    if (deadline && now >= *deadline) return cudaErrorNotReady;
    if (now < spin_until) {
      pause();
    } else if (deadline) {
      std::this_thread::sleep_for(std::min<Clock::duration>(kNap, *deadline - now));
    } else {
      code = cudaEventSynchronize(submission.events.end);
      if (code != cudaSuccess) static_cast<void>(cudaGetLastError());
      return code;
    }
  }
}

void CudaQueue::wait_issued(CudaSubmission& submission, const Deadline& deadline) noexcept {
  const cudaError_t code = wait_event(submission, deadline);
  if (code == cudaErrorNotReady) return;
  if (code != cudaSuccess) device_.lose(code);
  Lock lock(mutex_);
  // It has ended, and with it all before it on the stream.
  while (!submission.finished()) {
    if (!finishing_) {
      finish_and_release_head(lock);
    } else if (!deadline) {
      changed_.wait(lock);
    } else if (changed_.wait_until(lock, *deadline) == std::cv_status::timeout) {
      return;
    }
  }
}

Result<void> CudaQueue::wait(SubmissionImpl& submission, Deadline deadline) {
  if (submission.finished()) return {};
  MLXN_CHECK(check_no_release("wait"));
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  static_cast<void>(device_.use());  // lost or not, the submission comes to its end
  wait_issued(static_cast<CudaSubmission&>(submission), deadline);
  return {};
}

void CudaQueue::refresh(SubmissionImpl& submission) noexcept {
  static_cast<void>(device_.use());
  Lock lock(mutex_);
  while (!submission.finished() && head_has_ended(lock)) finish_and_release_head(lock);
}

bool CudaQueue::collect() noexcept {
  Lock lock(mutex_);
  bool any = false;
  while (head_has_ended(lock)) {
    finish_and_release_head(lock);
    any = true;
  }
  return any;
}

Result<void> CudaQueue::drain() {
  MLXN_CHECK(check_no_release("wait_idle"));
  static_cast<void>(device_.use());
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  std::shared_ptr<CudaSubmission> last;
  {
    Lock lock(mutex_);
    const auto issued = std::find_if(pending_.rbegin(), pending_.rend(), [](const auto& s) { return s->issued; });
    if (issued != pending_.rend()) last = *issued;
    const std::uint64_t target = last ? 0 : finished_ + (finishing_ ? 1 : 0);
    changed_.wait(lock, [&] { return finished_ >= target; });
  }
  if (last) wait_issued(*last, std::nullopt);
  return {};
}

Result<void> CudaQueue::wait_unused(const Allocation& allocation) {
  {
    const std::lock_guard lock(mutex_);
    const auto uses = [&](const auto& submission) { return submission->list_ && submission->list_->binds(allocation); };
    if (std::none_of(pending_.begin(), pending_.end(), uses)) return {};
  }
  return drain();
}

Result<void> CudaQueue::order_before(cudaStream_t other, cudaEvent_t event) {
  MLXN_CHECK(check_stream());
  cudaError_t code = cudaEventRecord(event, stream_);
  if (code == cudaSuccess) code = cudaStreamWaitEvent(other, event, 0);
  if (code != cudaSuccess) return device_.failed("waiting for a queue", code);
  return {};
}

// ---- the lane -----------------------------------------------------------------------------------------------------------

Result<void> CudaQueue::add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                     std::function<void(const Result<void>&)> done) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    const std::lock_guard lock(mutex_);
    MLXN_CHECK(start_lane());
    submission->callbacks.push_back(std::move(done));
    lane_until_ = std::max(lane_until_, static_cast<CudaSubmission&>(*submission).number);
    if (submission->finished()) list_to_call(submission);
    changed_.notify_all();
    return {};
  });
}

void CudaQueue::list_to_call(const std::shared_ptr<SubmissionImpl>& submission) noexcept {
  if (submission->listed_to_call) return;
  submission->listed_to_call = true;
  (first_to_call_ ? last_to_call_->next_to_call : first_to_call_) = submission;
  last_to_call_ = submission.get();
}

Result<void> CudaQueue::start_lane() {
  if (lane_.joinable()) return {};
  auto alive = std::make_shared<std::atomic<bool>>(true);
  try {
    lane_ = std::thread([this, alive] { lane(alive); });
  } catch (const std::system_error& e) {
    return make_error(ErrorCode::out_of_memory, "cuda: the system refused a thread for asynchronous work: {}", e.what());
  }
  alive_ = std::move(alive);
  return {};
}

void CudaQueue::lane(const std::shared_ptr<std::atomic<bool>>& alive) noexcept {
  Lock lock(mutex_);
  static_cast<void>(cudaSetDevice(device_.ordinal()));
  for (;;) {
    changed_.wait(lock, [&] {
      return stop_ || first_to_call_ || (finished_ < lane_until_ && !finishing_ && !pending_.empty() && pending_.front()->issued);
    });
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
      const std::shared_ptr<CudaSubmission> head = pending_.front();
      lock.unlock();
      const cudaError_t code = device_.lost() ? cudaSuccess : cudaEventSynchronize(head->events.end);
      if (code != cudaSuccess) device_.lose(code);
      lock.lock();
      // Unfinished and in nobody's hands, it is still the head.
      if (!head->finished() && !finishing_) submission = finish_head(lock);
      lock.unlock();
    }
    submission.reset();
    if (!alive->load()) return;  // that was the last handle of the device: the queue is gone
    lock.lock();
  }
}

}  // namespace mlxn::cuda
