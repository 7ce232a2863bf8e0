#pragma once

#include "backends/gpu/command_list.h"
#include "backends/queue_impl.h"
#include "backends/simt/device.h"

namespace mlxn::simt {

class SimtCommandList final : public gpu::GpuCommandList {
 public:
  using GpuCommandList::GpuCommandList;
  [[nodiscard]] Result<void> dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) override;
  /// Runs the nodes in order, up to the first that fails.
  [[nodiscard]] Result<void> run(SimtDevice& device, std::uint64_t& executed);

 protected:
  [[nodiscard]] Result<std::span<std::byte>> stage(std::uint64_t bytes) override;
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_scratch(std::uint64_t bytes) override;
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_counters(std::uint64_t bytes) override;

 private:
  [[nodiscard]] Result<void> launch(SimtDevice& device, const Node& node) const;
  std::vector<std::vector<std::byte>> staged_;
};

/// Runs what it is given at once, on the caller's thread.
class SimtQueue final : public QueueImpl {
 public:
  /// `keep` holds the device, for all queues but the one that it owns.
  SimtQueue(SimtDevice& device, std::shared_ptr<SimtDevice> keep) : device_(device), keep_(std::move(keep)) {}
  [[nodiscard]] DeviceImpl& device() const noexcept override { return device_; }
  [[nodiscard]] Result<std::shared_ptr<SubmissionImpl>> submit(std::shared_ptr<CommandList>&& list, bool will_wait) override;
  [[nodiscard]] Result<void> wait(SubmissionImpl& submission,
                                  std::optional<std::chrono::steady_clock::time_point> deadline) override;
  [[nodiscard]] Result<void> add_callback(const std::shared_ptr<SubmissionImpl>& submission,
                                          std::function<void(const Result<void>&)> done) override;
  [[nodiscard]] Result<void> drain() override;

 private:
  SimtDevice& device_;
  std::shared_ptr<SimtDevice> keep_;
};

}  // namespace mlxn::simt
