#include "base/forks.h"

#include <pthread.h>

#include <atomic>

namespace mlxn {
namespace {

std::atomic<std::uint64_t> forks{0};

}  // namespace

std::uint64_t fork_count() noexcept {
  // It fails for want of memory only; forks are not noticed then.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(registered);
  return forks.load(std::memory_order_relaxed);
}

}  // namespace mlxn
