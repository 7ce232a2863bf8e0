#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/tensor.h"

namespace mlxn {

class CommandEncoder;
class DeviceImpl;
class KernelRegistry;
class QueueImpl;
struct EncoderOptions;

/// How a device is opened.
struct DeviceOptions {
  /// CPU: threads that compute, the caller's included. 0 takes the smaller of the allowed physical cores and the cgroup
  /// quota. At most kMaxThreads.
  int threads = 0;
  /// Uncompleted submissions per queue before commit() blocks (or reports busy).
  int max_in_flight = 32;
  bool busy_when_full = false;
  /// Bytes this device may hold at a time; 0 sets no limit. Beyond it allocations fail with out_of_memory.
  std::uint64_t memory_limit_bytes = 0;
};
inline constexpr int kMaxThreads = 1024;

/// What a device can do.
struct Capabilities {
  std::string name;              ///< "AMD EPYC 9R14 (2 threads, avx512)"
  std::string backend;           ///< "cpu"
  std::string id;                ///< as Device::open takes it: "cpu", "cuda:1"
  std::string selection_reason;  ///< why `auto` chose it, empty if it was named
  bool unified_memory = true;    ///< the CPU sees its memory
  std::uint64_t total_bytes = 0;
  /// When the device was opened; Device::free_bytes() tells the present number. 0 of a GPU that was only enumerated.
  std::uint64_t free_bytes = 0;
  std::uint64_t largest_allocation_bytes = 0;
  std::uint64_t last_level_cache_bytes = 0;
  int threads = 1;                     ///< CPU worker threads; on a GPU the most threads of a group
  int compute_units = 1;               ///< a GPU's multiprocessors, a CPU's worker threads
  std::uint32_t group_memory_bytes = 0;  ///< shared memory of a group, 0 on a CPU
  std::uint32_t simd_width = 1;        ///< f32 lanes per vector or SIMD group
  bool native_bf16 = false;
  bool matrix_units = false;
  std::uint32_t alignment_bytes = 256;  ///< of every allocation's base
};

/// Where memory lives. On a CPU every kind is shared.
enum class MemoryKind : std::uint8_t { automatic, shared, device, pinned };

struct AllocateOptions {
  bool zero = true;                    ///< fresh memory reads as zero; false says that all of it is written before it is read
  std::uint64_t alignment_bytes = 256;  ///< a power of two, at most 1 MiB
  MemoryKind kind = MemoryKind::automatic;
};

/// What happened on a device, a queue or in a submission so far.
struct Counters {
  std::uint64_t dispatches_encoded = 0;   ///< dispatches recorded, captured ones included, replays not
  std::uint64_t dispatches_executed = 0;  ///< dispatches that ran, replays included
  std::uint64_t barriers = 0;             ///< joins between dispatches that ran
  std::uint64_t submissions = 0;
  std::uint64_t syncs = 0;        ///< blocking waits of the host for the device
  std::uint64_t allocations = 0;  ///< device memory blocks taken from the system
  std::uint64_t bytes_in_use = 0;
  std::uint64_t peak_bytes_in_use = 0;
  std::uint64_t graph_launches = 0;  ///< replays that went to a GPU as one launch
};

/// Process-wide sums over all devices.
struct ProcessCounters {
  std::uint64_t dispatches_encoded = 0;
  std::uint64_t syncs = 0;  ///< commit_and_wait and replay_and_wait only, not other waits
};
[[nodiscard]] ProcessCounters process_counters() noexcept;
void reset_process_counters() noexcept;

/// An in-order lane of submissions on a device. Copies share it; usable from any thread.
class Queue {
 public:
  Queue() = default;
  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  [[nodiscard]] Counters counters() const noexcept;
  /// Blocks until nothing is queued or running. The error of a failed submission whose handles went away unread, unless a
  /// commit has reported it: it is handed out once.
  [[nodiscard]] Result<void> wait_idle() const;

  [[nodiscard]] const std::shared_ptr<QueueImpl>& impl() const noexcept { return impl_; }
  explicit Queue(std::shared_ptr<QueueImpl> impl) noexcept : impl_(std::move(impl)) {}

 private:
  friend class Device;
  friend class CommandEncoder;
  friend class Graph;
  std::shared_ptr<QueueImpl> impl_;
};

/// A processor that runs operations: a shared handle, cheap to copy, usable from any thread.
///
/// It does not outlive fork(): its threads are not in the child. There every call that allocates, records, submits, maps or waits
/// is wrong_state, and handles may be dropped, which frees what takes no thread to free: open a device in the child. (Who exits
/// the child by _exit() or exec() need not care.)
class Device {
 public:
  /// By name: `auto`, `cpu`, `cuda`, `cuda:1`, `metal`. `auto` takes the best GPU that is present and that the build
  /// supports (the newest architecture, then the most multiprocessors and memory; one that does not start is passed over),
  /// else the CPU, and says why in Capabilities::selection_reason.
  /// Errors: invalid_argument (unknown name, options out of their domain), unsupported (backend not in this build),
  /// not_found (no such device), out_of_memory.
  [[nodiscard]] static Result<Device> open(std::string_view name = "auto", const DeviceOptions& options = {});
  /// Every device that open() can reach, the CPU always among them. GPUs are not started for that: a context would take
  /// hundreds of megabytes of each and as many milliseconds.
  [[nodiscard]] static Result<std::vector<Capabilities>> enumerate();

  Device() = default;
  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  [[nodiscard]] const Capabilities& capabilities() const noexcept;
  /// Bytes that could be allocated now.
  [[nodiscard]] std::uint64_t free_bytes() const noexcept;
  [[nodiscard]] Counters counters() const noexcept;
  [[nodiscard]] KernelRegistry& kernels() const noexcept;

  /// Fresh memory as a row-major tensor; zero unless options say otherwise.
  /// Errors: bad_shape (no bytes, overflow, more than kMaxRank axes), bad_dtype, invalid_argument, out_of_memory.
  [[nodiscard]] Result<Tensor> allocate(DType dtype, const Shape& shape, const AllocateOptions& options = {}) const;
  /// A tensor over memory of the caller, which must hold `bytes` bytes; `deleter` runs once, when the last handle and the
  /// last submission that uses it are gone (also if this call fails). It may commit work; waiting for the queue of that
  /// submission is wrong_state in it. On a GPU that has memory of its own this is an address
  /// that the GPU can use: its memory, or pinned memory of the host. Errors: invalid_argument, bad_shape, wrong_device.
  [[nodiscard]] Result<Tensor> import_memory(void* data, std::uint64_t bytes, std::function<void()> deleter, DType dtype,
                                             const Shape& shape) const;

  [[nodiscard]] Result<Queue> create_queue() const;
  [[nodiscard]] Queue default_queue() const noexcept;
  [[nodiscard]] Result<CommandEncoder> encoder(const EncoderOptions& options) const;
  [[nodiscard]] Result<CommandEncoder> encoder() const;

  /// copy() and fill() of an encoder, done when they return.
  [[nodiscard]] Result<void> copy(const Tensor& to, const Tensor& from) const;
  [[nodiscard]] Result<void> fill(const Tensor& to, std::byte value) const;
  /// Synchronous copies between host memory and a contiguous tensor of exactly that many bytes.
  [[nodiscard]] Result<void> upload(const Tensor& to, std::span<const std::byte> from) const;
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Tensor& from) const;

  friend bool operator==(const Device& a, const Device& b) noexcept { return a.impl_ == b.impl_; }
  [[nodiscard]] const std::shared_ptr<DeviceImpl>& impl() const noexcept { return impl_; }
  explicit Device(std::shared_ptr<DeviceImpl> impl) noexcept : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<DeviceImpl> impl_;
};

}  // namespace mlxn
