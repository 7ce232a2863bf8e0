#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/launch.h"
#include "mlxn/encoder.h"

namespace mlxn {

class DeviceImpl;

/// The ranges that the current group of dispatches, those that may overlap, reads and writes.
class HazardTracker {
 public:
  /// Whether a dispatch with these ranges conflicts with the group: it reads what the group writes, or writes what the group
  /// touches. Ranges that merely touch do not conflict.
  [[nodiscard]] bool conflicts(const LaunchRecord& record) const noexcept;
  void add(const LaunchRecord& record);
  void start_group() noexcept { ranges_.clear(); }

 private:
  struct Range {
    const Allocation* allocation;
    std::uint64_t begin, end;
    bool write;
  };
  std::vector<Range> ranges_;
};

/// Recorded work of one encoder or graph. Backends derive from it and keep their own nodes.
class CommandList {
 public:
  CommandList(std::shared_ptr<DeviceImpl> device, const EncoderOptions& options);
  virtual ~CommandList();
  CommandList(const CommandList&) = delete;
  CommandList& operator=(const CommandList&) = delete;

  [[nodiscard]] const std::shared_ptr<DeviceImpl>& device() const noexcept { return device_; }
  [[nodiscard]] const std::string& label() const noexcept { return label_; }
  [[nodiscard]] virtual std::size_t dispatches() const noexcept = 0;
  [[nodiscard]] virtual std::size_t barriers() const noexcept = 0;

  /// Later dispatches wait for all earlier ones.
  void barrier() noexcept;
  [[nodiscard]] virtual Result<void> dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) = 0;
  [[nodiscard]] virtual Result<void> upload(const Tensor& to, std::span<const std::byte> from) = 0;
  [[nodiscard]] virtual Result<void> copy(const Tensor& to, const Tensor& from) = 0;
  [[nodiscard]] virtual Result<void> fill(const Tensor& to, std::byte value) = 0;

  /// Writes a graph parameter into every launch struct that uses it.
  virtual void patch(int parameter, std::int64_t value) noexcept = 0;
  /// Replaces the addresses of `from` by `to` and works the joins out anew.
  [[nodiscard]] virtual Result<void> rebind(const Tensor& from, const Tensor& to) = 0;

  struct Parameter {
    std::string name;
    std::int64_t value;
  };
  std::vector<Parameter> parameters;
  bool recording_graph = false;

  /// Marks every bound allocation as used by a submission, or no longer.
  void begin_use() const noexcept;
  void end_use() const noexcept;

 protected:
  /// Whether the next dispatch has to wait for the group before it; then it starts a group of its own. Keeps the allocations
  /// alive and counts the dispatch.
  [[nodiscard]] bool track(const LaunchRecord& record);
  void retain(const std::shared_ptr<Allocation>& allocation);

  std::shared_ptr<DeviceImpl> device_;
  HazardTracker hazards_;
  HazardMode mode_;
  bool pending_barrier_ = false;

 private:
  std::string label_;
  std::vector<std::shared_ptr<Allocation>> retained_;
};

}  // namespace mlxn
