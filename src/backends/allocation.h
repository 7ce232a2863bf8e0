#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#ifndef NDEBUG
#include <mutex>
#include <vector>
#endif

#include "mlxn/result.h"

namespace mlxn {

class DeviceImpl;

/// A block of device memory and what hangs on it: the device, a way to give it back, the work that still uses it.
class Allocation {
 public:
  /// `release` runs once, when the last handle is gone. It must not throw.
  Allocation(std::shared_ptr<DeviceImpl> device, std::byte* data, std::uint64_t bytes, std::function<void()> release) noexcept
      : device_(std::move(device)), data_(data), bytes_(bytes), release_(std::move(release)) {}
  ~Allocation() {
    if (release_) release_();
  }
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  /// Sets what runs when the last handle is gone.
  void set_release(std::function<void()> release) noexcept { release_ = std::move(release); }

  [[nodiscard]] const std::shared_ptr<DeviceImpl>& device() const noexcept { return device_; }
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// Submissions that bind the memory and have not completed.
  void begin_use() noexcept { pending_.fetch_add(1, std::memory_order_relaxed); }
  void end_use() noexcept { pending_.fetch_sub(1, std::memory_order_release); }
  [[nodiscard]] bool in_use() const noexcept { return pending_.load(std::memory_order_acquire) != 0; }

  /// Who handed the memory out (a pool), or null.
  const void* owner = nullptr;

  /// Debug builds: remembers a write mapping of [begin, end) and refuses one that overlaps another.
  [[nodiscard]] Result<void> begin_write(std::uint64_t begin, std::uint64_t end);
  void end_write(std::uint64_t begin, std::uint64_t end) noexcept;

 private:
  std::shared_ptr<DeviceImpl> device_;
  std::byte* data_;
  std::uint64_t bytes_;
  std::function<void()> release_;
  std::atomic<std::int32_t> pending_{0};
#ifndef NDEBUG
  struct Range {
    std::uint64_t begin, end;
  };
  std::mutex mutex_;
  std::vector<Range> writes_;
#endif
};

}  // namespace mlxn
