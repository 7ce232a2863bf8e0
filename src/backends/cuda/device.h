#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "backends/cuda/runtime.h"
#include "backends/cuda/transfer.h"
#include "backends/device_impl.h"
#include "backends/scratch_cache.h"

namespace mlxn::cuda {

class CudaQueue;

/// When a submission began and ended on the device.
struct Events {
  cudaEvent_t begin = nullptr, end = nullptr;
};

/// An NVIDIA GPU in its primary context. Every public function makes it the calling thread's device.
class CudaDevice final : public DeviceImpl {
 public:
  [[nodiscard]] static Result<std::shared_ptr<CudaDevice>> open(int ordinal, const DeviceOptions& options, std::string_view reason);
  [[nodiscard]] static Result<std::shared_ptr<CudaDevice>> open_best(const DeviceOptions& options);
  [[nodiscard]] static Result<void> enumerate(std::vector<Capabilities>& devices);

  CudaDevice(int ordinal, int capability, Capabilities capabilities, const DeviceOptions& device_options);
  ~CudaDevice() override;

  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate(std::uint64_t bytes, const AllocateOptions& options) override;
  [[nodiscard]] Result<std::shared_ptr<QueueImpl>> create_queue() override;
  [[nodiscard]] Result<std::shared_ptr<CommandList>> create_list(const EncoderOptions& options) override;
  [[nodiscard]] Result<void> wait_unused(const Allocation& allocation) override;
  [[nodiscard]] const Capabilities& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] std::uint64_t free_bytes() const noexcept override;
  [[nodiscard]] bool is_gpu() const noexcept override { return true; }
  [[nodiscard]] bool is_cuda() const noexcept override { return true; }
  [[nodiscard]] bool is_hopper() const noexcept override { return capability_ == 90; }
  [[nodiscard]] Result<void> tensor_map(gpu::TensorMap& map, const gpu::TensorMapSpec& spec) override;
  [[nodiscard]] Result<void> move_tensor_map(gpu::TensorMap& map, const std::byte* base) override;
  [[nodiscard]] Result<void> upload(const Allocation& to, std::uint64_t offset, std::span<const std::byte> from) override;
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Allocation& from, std::uint64_t offset) override;
  [[nodiscard]] Result<bool> check_import(const void* data, std::uint64_t bytes) override;
  [[nodiscard]] Result<std::shared_ptr<const DeviceCode>> compile(const KernelInfo& info, const CudaSource& source) override;

  [[nodiscard]] int ordinal() const noexcept { return ordinal_; }
  /// Whether the machine code for this device has the waits of KernelInfo::starts_early: that of compute capability 9.0 has.
  [[nodiscard]] bool starts_early() const noexcept { return capability_ == 90; }
  /// A queue on a stream of the caller.
  [[nodiscard]] Result<std::shared_ptr<QueueImpl>> adopt_stream(cudaStream_t stream);

  /// Makes this the calling thread's device. device_lost once it has failed.
  [[nodiscard]] Result<void> use() noexcept;
  /// The typed error of a failed call. One that tells of a fault, which is of earlier work and not of the call, marks the
  /// device lost; its text tells what work was unfinished instead of what was called.
  [[nodiscard]] Error failed(std::string_view what, cudaError_t code) noexcept;
  /// Marks the device lost. `culprit` is the work that must have caused the fault, unless a queue other than `its_queue` did.
  void lose(cudaError_t code, std::string_view culprit = {}, const CudaQueue* its_queue = nullptr) noexcept;
  [[nodiscard]] bool lost() const noexcept { return lost_.load(std::memory_order_acquire); }
  /// The fault of a lost device, for the first who asks; device_lost for all others.
  [[nodiscard]] Error take_fault() noexcept;
  /// What every call says on a lost device.
  [[nodiscard]] Error lost_error() const noexcept;

  /// Memory of the device (or pinned memory of the host, which both see) for the work of command lists, kept for the next
  /// list when it is given back.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_scratch(std::uint64_t bytes);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_staging(std::uint64_t bytes);
  /// Likewise, zero, and left so by all that used it.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_counters(std::uint64_t bytes);

  [[nodiscard]] Result<Events> take_events();
  void give_back_events(Events events) noexcept;

  /// Makes `stream` wait for all work that was submitted to any queue before; `event` is free for that.
  [[nodiscard]] Result<void> order_behind_queues(cudaStream_t stream, cudaEvent_t event);

 private:
  enum class Place : std::uint8_t { device, pinned };
  struct CompiledKernel;
  [[nodiscard]] Result<std::shared_ptr<CudaQueue>> add_queue(cudaStream_t stream, bool owned, std::shared_ptr<CudaDevice> keep);
  [[nodiscard]] Result<std::shared_ptr<CudaQueue>> make_queue(std::shared_ptr<CudaDevice> keep);
  [[nodiscard]] Result<void*> take(std::uint64_t bytes, Place place);
  [[nodiscard]] cudaError_t try_take(void*& data, std::uint64_t bytes, Place place) noexcept;
  void give_back(void* data, std::uint64_t bytes, Place place) noexcept;
  [[nodiscard]] Result<std::shared_ptr<Allocation>> take_cached(std::uint64_t bytes, Place place, ScratchCache& cache,
                                                                bool zero = false);
  /// Returns what is kept for later to the system, and what finished work still holds; whether there was any.
  bool drop_unused() noexcept;
  template <class F>
  [[nodiscard]] Result<void> for_queues(F&& f);
  /// Names of the work that may be running now, on all queues but `except`. Takes the locks of queues, one after the other.
  [[nodiscard]] std::string unfinished_work(const CudaQueue* except) noexcept;

  const int ordinal_;
  const int capability_;  // compute capability, 90 for 9.0
  Capabilities capabilities_;
  std::atomic<bool> lost_{false};
  mutable std::mutex fault_mutex_;
  std::optional<Error> fault_;  // the first one
  bool fault_taken_ = false;
  ScratchCache free_scratch_, free_staging_, free_counters_;
  Transfer transfer_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<CudaQueue>> queues_;
  std::vector<Events> free_events_;  // never grows beyond the room it got at the start
  std::mutex code_mutex_;
  std::map<std::string, std::shared_ptr<const DeviceCode>> code_;  // by all that it was compiled from
};

}  // namespace mlxn::cuda
