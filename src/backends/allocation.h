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
struct PoolBlock;

/// A block of device memory, its device and a way to give it back. Command lists hold the allocations that they bind until
/// their work has completed, so that the last handle is the last use.
class Allocation {
 public:
  /// `release` runs once, when the last handle is gone. What it throws is dropped.
  Allocation(std::shared_ptr<DeviceImpl> device, std::byte* data, std::uint64_t bytes, std::function<void()> release) noexcept
      : device_(std::move(device)), data_(data), bytes_(bytes), release_(std::move(release)) {}
  ~Allocation() {
    if (!release_) return;
    try {
      release_();
    } catch (...) {  // a deleter's exception has nowhere to go
    }
  }
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  /// Sets what runs when the last handle is gone.
  void set_release(std::function<void()> release) noexcept { release_ = std::move(release); }

  [[nodiscard]] const std::shared_ptr<DeviceImpl>& device() const noexcept { return device_; }
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// Whether the CPU may read and write the memory; `data` is an address on the device otherwise.
  bool cpu_visible = true;
  /// Memory of a command list's own: its dispatches are ordered in every hazard mode, and no graph re-binds it.
  bool scratch = false;
  /// The pool's side of the memory, null unless a pool handed it out.
  PoolBlock* pool_block = nullptr;
  /// The command list that bound it last; see CommandList::retain.
  std::atomic<std::uint64_t> last_list{0};

  /// Debug builds: remembers a write mapping of [begin, end) and refuses one that overlaps another.
  [[nodiscard]] Result<void> begin_write(std::uint64_t begin, std::uint64_t end);
  void end_write(std::uint64_t begin, std::uint64_t end) noexcept;

 private:
  std::shared_ptr<DeviceImpl> device_;
  std::byte* data_;
  std::uint64_t bytes_;
  std::function<void()> release_;
#ifndef NDEBUG
  struct Range {
    std::uint64_t begin, end;
  };
  std::mutex mutex_;
  std::vector<Range> writes_;
#endif
};

}  // namespace mlxn
