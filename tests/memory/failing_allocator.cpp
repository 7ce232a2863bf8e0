#include "tests/memory/failing_allocator.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> countdown{-1};  // requests that still succeed; -1: no request fails
std::atomic<bool> failed{false}, threw{false}, forever{false};
std::atomic<std::int64_t> live{0};

bool fails_now() noexcept {
  if (countdown.load(std::memory_order_relaxed) < 0) return false;
  if (failed.load(std::memory_order_relaxed)) return forever.load(std::memory_order_relaxed);
  if (countdown.load(std::memory_order_relaxed) > 0 && countdown.fetch_sub(1, std::memory_order_relaxed) > 0) return false;
  failed.store(true, std::memory_order_relaxed);
  return true;
}

void* take(std::size_t bytes, std::size_t alignment) noexcept {
  if (fails_now()) return nullptr;
  void* data = nullptr;
  if (alignment <= alignof(std::max_align_t)) {
    data = std::malloc(bytes == 0 ? 1 : bytes);
  } else if (posix_memalign(&data, alignment, bytes == 0 ? 1 : bytes) != 0) {
    data = nullptr;
  }
  if (data != nullptr) live.fetch_add(1, std::memory_order_relaxed);
  return data;
}

void give_back(void* data) noexcept {
  if (data == nullptr) return;
  live.fetch_sub(1, std::memory_order_relaxed);
  std::free(data);
}

void* take_or_throw(std::size_t bytes, std::size_t alignment) {
  void* data = take(bytes, alignment);
  if (data != nullptr) return data;
  threw.store(true, std::memory_order_relaxed);
  throw std::bad_alloc();
}

}  // namespace

namespace mlxn::test {

void fail_allocation(std::int64_t k, FailMode mode) noexcept {
  failed.store(false);
  threw.store(false);
  forever.store(mode == FailMode::forever);
  countdown.store(k);
}
bool allocation_failed() noexcept {
  countdown.store(-1);
  return failed.load();
}
bool allocation_threw() noexcept { return threw.load(); }
std::int64_t live_blocks() noexcept { return live.load(); }

}  // namespace mlxn::test

void* operator new(std::size_t n) { return take_or_throw(n, 1); }
void* operator new[](std::size_t n) { return take_or_throw(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) { return take_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return take_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return take(n, 1); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return take(n, 1); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return take(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { give_back(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { give_back(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { give_back(p); }

// The C library's own requests do not come through here, the ones of this program do. Sanitizers keep theirs, because they
// have to see what is mapped.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  void* data = nullptr;
  return fails_now() || posix_memalign(&data, alignment, bytes) != 0 ? nullptr : data;
}

extern "C" int munmap(void* address, std::size_t bytes) noexcept {
  live.fetch_sub(1, std::memory_order_relaxed);
  return static_cast<int>(syscall(SYS_munmap, address, bytes));
}

extern "C" void* mmap(void* address, std::size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  if (fails_now()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  const long result = syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
  if (result != -1) live.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<void*>(result);
}
#endif
