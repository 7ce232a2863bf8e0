#include "backends/queue_impl.h"

#include "base/error.h"

namespace mlxn {

SubmissionImpl::~SubmissionImpl() {
  if (error && !observed.load(std::memory_order_relaxed)) queue_->leave_sticky_error(*error);
}

bool SubmissionImpl::done() noexcept {
  if (finished()) return true;
  queue_->refresh(*this);
  return finished();
}

Result<void> SubmissionImpl::result() noexcept {
  if (!error) return {};
  observed.store(true, std::memory_order_relaxed);
  return *error;
}

constinit thread_local const QueueImpl::Releasing* QueueImpl::Releasing::innermost_ = nullptr;

bool QueueImpl::is_releasing() const noexcept {
  for (const Releasing* r = Releasing::innermost_; r != nullptr; r = r->outer_) {
    if (&r->queue_ == this) return true;
  }
  return false;
}

Result<void> QueueImpl::check_no_release(std::string_view what) const noexcept {
  if (!is_releasing()) return {};
  return make_error(ErrorCode::wrong_state, "{}: called by the deleter of memory, as work on the queue ends", what);
}

std::optional<Error> QueueImpl::take_sticky_error() noexcept {
  const std::lock_guard lock(sticky_mutex_);
  std::optional<Error> error = std::move(sticky_);
  sticky_.reset();
  return error;
}

void QueueImpl::leave_sticky_error(Error error) noexcept {
  const std::lock_guard lock(sticky_mutex_);
  if (!sticky_) sticky_ = std::move(error);
}

}  // namespace mlxn
