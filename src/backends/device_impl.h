#pragma once

#include <atomic>
#include <memory>
#include <span>

#include "backends/allocation.h"
#include "base/forks.h"
#include "mlxn/device.h"
#include "mlxn/kernel.h"

namespace mlxn {

class CommandList;
class QueueImpl;
namespace gpu {
struct TensorMap;
struct TensorMapSpec;
}  // namespace gpu

/// Counters that several threads update.
struct AtomicCounters {
  std::atomic<std::uint64_t> dispatches_encoded{0}, dispatches_executed{0}, barriers{0}, submissions{0}, syncs{0},
      allocations{0}, bytes_in_use{0}, peak_bytes_in_use{0}, graph_launches{0};
  [[nodiscard]] Counters snapshot() const noexcept;
};

/// The side of a device that a backend implements.
class DeviceImpl : public std::enable_shared_from_this<DeviceImpl> {
 public:
  virtual ~DeviceImpl() = default;
  /// Fresh memory; `bytes` > 0, the alignment is checked.
  [[nodiscard]] virtual Result<std::shared_ptr<Allocation>> allocate(std::uint64_t bytes, const AllocateOptions& options) = 0;
  [[nodiscard]] virtual Result<std::shared_ptr<QueueImpl>> create_queue() = 0;
  [[nodiscard]] virtual Result<std::shared_ptr<CommandList>> create_list(const EncoderOptions& options) = 0;
  /// Blocks until no submission uses the allocation. wrong_state if called from inside a kernel.
  [[nodiscard]] virtual Result<void> wait_unused(const Allocation& allocation) = 0;
  [[nodiscard]] virtual const Capabilities& capabilities() const noexcept = 0;
  /// Bytes that could be allocated now.
  [[nodiscard]] virtual std::uint64_t free_bytes() const noexcept = 0;
  /// Whether it runs the portable kernels; its command lists are then gpu::GpuCommandLists.
  [[nodiscard]] virtual bool is_gpu() const noexcept { return false; }
  /// Whether it runs the kernels written for every NVIDIA GPU from compute capability 8.0 on.
  [[nodiscard]] virtual bool is_cuda() const noexcept { return false; }
  /// Whether it runs the kernels written for Hopper (compute capability 9.0), whose weights lie in records (quant/records.h).
  [[nodiscard]] virtual bool is_hopper() const noexcept { return false; }
  /// What a Hopper kernel's tensor copies go by. unsupported elsewhere.
  [[nodiscard]] virtual Result<void> tensor_map(gpu::TensorMap& map, const gpu::TensorMapSpec& spec);
  /// The same of memory that begins at `base`.
  [[nodiscard]] virtual Result<void> move_tensor_map(gpu::TensorMap& map, const std::byte* base);
  /// Copies between host memory and memory that the CPU does not see, done when they return and ordered behind all work that
  /// was submitted before. The caller has checked the range.
  [[nodiscard]] virtual Result<void> upload(const Allocation& to, std::uint64_t offset, std::span<const std::byte> from);
  [[nodiscard]] virtual Result<void> download(std::span<std::byte> to, const Allocation& from, std::uint64_t offset);

  /// Whether the memory at [data, data + bytes) may be imported; true if the CPU sees it.
  [[nodiscard]] virtual Result<bool> check_import(const void* data, std::uint64_t bytes);
  /// The machine code of a kernel from CUDA C++.
  [[nodiscard]] virtual Result<std::shared_ptr<const DeviceCode>> compile(const KernelInfo& info, const CudaSource& source);

  [[nodiscard]] const std::shared_ptr<QueueImpl>& default_queue() const noexcept { return default_queue_; }

  /// Whether this process is a child of the one that opened the device, whose threads are not here.
  [[nodiscard]] bool is_forked() const noexcept { return fork_count() != forks_; }
  /// wrong_state if so.
  [[nodiscard]] Result<void> check_fork(std::string_view what) const noexcept;

  DeviceOptions options;
  AtomicCounters counters;
  KernelRegistry registry{*this};

 protected:
  std::shared_ptr<QueueImpl> default_queue_;

 private:
  const std::uint64_t forks_ = fork_count();
};

/// Ends a device or a queue. In a child of its process it is left as it is instead: its end would wait for threads that are not
/// there, and for locks and conditions that they held.
struct EndAtHome {
  void operator()(DeviceImpl* device) const noexcept;
  void operator()(QueueImpl* queue) const noexcept;
};

/// What every backend checks of its options.
[[nodiscard]] Result<void> check_options(std::string_view backend, const DeviceOptions& options);

/// Bytes of fresh memory for a shape. bad_shape if there are none, they overflow or break a block.
[[nodiscard]] Result<std::uint64_t> allocation_bytes(DType dtype, const Shape& shape);

/// Adds to both the device's and the process's count.
void count_dispatches_encoded(DeviceImpl& device, std::uint64_t n) noexcept;
/// A blocking wait, for the device's count.
void count_sync(DeviceImpl& device) noexcept;
/// A commit_and_wait, for the process's count.
void count_commit_and_wait() noexcept;

}  // namespace mlxn
