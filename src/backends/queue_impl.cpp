#include "backends/queue_impl.h"

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
