#pragma once

#include <mutex>

#include "backends/device_impl.h"

namespace mlxn::simt {

/// Makes the device `simt` known to Device::open: the portable GPU kernels as host code on the emulator (simt/emulator.h).
/// For tests: it finds faults, it is not fast. Calling it again does nothing.
void add_emulator();

/// A GPU whose memory the CPU is not supposed to see, although it lies in the host's.
class SimtDevice final : public DeviceImpl {
 public:
  [[nodiscard]] static Result<std::shared_ptr<SimtDevice>> open(const DeviceOptions& options);
  [[nodiscard]] static Capabilities describe();
  explicit SimtDevice(const DeviceOptions& device_options);

  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate(std::uint64_t bytes, const AllocateOptions& options) override;
  [[nodiscard]] Result<std::shared_ptr<QueueImpl>> create_queue() override;
  [[nodiscard]] Result<std::shared_ptr<CommandList>> create_list(const EncoderOptions& options) override;
  /// Work is done when commit() returns.
  [[nodiscard]] Result<void> wait_unused(const Allocation& allocation) override;
  [[nodiscard]] const Capabilities& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] std::uint64_t free_bytes() const noexcept override;
  [[nodiscard]] bool is_gpu() const noexcept override { return true; }
  [[nodiscard]] Result<void> upload(const Allocation& to, std::uint64_t offset, std::span<const std::byte> from) override;
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Allocation& from, std::uint64_t offset) override;

  /// The order of groups and threads of the next launch.
  [[nodiscard]] std::uint64_t next_seed() noexcept { return seed_ + launches_.fetch_add(1, std::memory_order_relaxed); }
  /// Held while a submission runs.
  std::mutex mutex;

 private:
  Capabilities capabilities_;
  std::uint64_t seed_;
  std::atomic<std::uint64_t> launches_{0};
};

}  // namespace mlxn::simt
