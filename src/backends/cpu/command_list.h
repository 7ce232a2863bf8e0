#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backends/command_list.h"
#include "backends/cpu/launch.h"

namespace mlxn::cpu {

class CpuDevice;

/// A user callable with what one dispatch gives it.
struct CallableCall;

/// The CPU's record: launch structs in a row, with a join before those that need one. Every thread of the team walks it.
class CpuCommandList final : public CommandList {
 public:
  CpuCommandList(std::shared_ptr<CpuDevice> device, const EncoderOptions& options);
  ~CpuCommandList() override;

  [[nodiscard]] Result<void> encode(std::string_view name, ErasedKernel entry, const void* args, std::size_t args_bytes,
                                    const LaunchRecord& record);
  [[nodiscard]] Result<Tensor> scratch(std::uint64_t bytes);

  [[nodiscard]] std::size_t dispatches() const noexcept override { return nodes_.size(); }
  [[nodiscard]] std::size_t barriers() const noexcept override;
  [[nodiscard]] Result<void> dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) override;
  [[nodiscard]] Result<void> upload(const Tensor& to, std::span<const std::byte> from) override;
  [[nodiscard]] Result<void> copy(const Tensor& to, const Tensor& from) override;
  [[nodiscard]] Result<void> fill(const Tensor& to, std::byte value) override;
  void patch(int parameter, std::int64_t value) noexcept override;
  [[nodiscard]] Result<void> rebind(const Tensor& from, const Tensor& to) override;

  struct Outcome {
    std::optional<Error> error;
    std::uint64_t dispatches = 0, barriers = 0;
  };
  /// Runs the record on the team; the calling thread is thread 0. One run at a time.
  [[nodiscard]] Outcome run(Team& team) noexcept;

 private:
  struct Node {
    alignas(64) std::uint64_t chunks = 0;  // the team's chunk counter, on a cache line of its own
    ErasedKernel run = nullptr;
    std::string_view name;
    bool wait = false;
    alignas(64) std::byte args[kMaxArgsBytes];
  };
  struct Patch {
    int parameter;
    std::uint32_t node;
    std::uint16_t field, size;
  };
  struct Bound {
    std::shared_ptr<Allocation> allocation;
    std::uint64_t begin, end;
    std::uint32_t node;
    Access access;
    std::uint16_t field;
  };

  Team* team_ = nullptr;
  std::vector<Node> nodes_;
  std::vector<Patch> patches_;
  std::vector<Bound> bound_;  // only of a graph, for rebind
  std::vector<std::unique_ptr<CallableCall>> calls_;
  std::shared_ptr<Allocation> arena_;
  std::uint64_t arena_used_ = 0;
};

}  // namespace mlxn::cpu
