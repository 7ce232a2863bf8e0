#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "backends/allocation.h"
#include "backends/command_list.h"
#include "backends/cpu/launch.h"

namespace mlxn::cpu {

class CpuDevice;

/// A user callable with what one dispatch gives it.
struct CallableCall;

/// Memory for the records of command lists, handed around between them: a fresh list writes to pages that are there already.
struct RecordBlock {
  static constexpr std::size_t kBytes = std::size_t{32} << 10;
  std::unique_ptr<RecordBlock> next;
  alignas(64) std::byte data[kBytes];
};

/// The CPU's record: a chain of launch structs with a join before those that need one. Every thread of the team walks it.
class CpuCommandList final : public CommandList {
 public:
  CpuCommandList(std::shared_ptr<CpuDevice> device, const EncoderOptions& options);
  ~CpuCommandList() override;

  [[nodiscard]] Result<void> encode(std::string_view name, ErasedKernel entry, const void* args, std::size_t args_bytes,
                                    const LaunchRecord& record, CallableCall* call = nullptr);
  [[nodiscard]] Result<Tensor> scratch(std::uint64_t bytes);

  [[nodiscard]] std::size_t dispatches() const noexcept override { return dispatches_; }
  [[nodiscard]] std::size_t barriers() const noexcept override { return barriers_; }
  [[nodiscard]] Result<void> dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) override;
  [[nodiscard]] Result<void> upload(const Tensor& to, std::span<const std::byte> from) override;
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Tensor& from) override;
  [[nodiscard]] Result<void> copy(const Tensor& to, const Tensor& from) override;
  [[nodiscard]] Result<void> fill(const Tensor& to, std::byte value) override;

  struct Outcome {
    std::optional<Error> error;
    std::uint64_t dispatches = 0, barriers = 0;
  };
  /// Runs the record on the team; the calling thread is thread 0. One run at a time. When a dispatch fails, those that wait
  /// for it do not run.
  [[nodiscard]] Outcome run(Team& team) noexcept;

 private:
  /// A dispatch; its launch struct follows. The team's chunk counter has a cache line without any other dispatch's counter.
  struct alignas(64) Node {
    std::uint64_t chunks;
    ErasedKernel run;
    Node* next;
    std::string_view name;
    std::uint32_t index;
    bool wait;
    [[nodiscard]] std::byte* args() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
  };
  static_assert(sizeof(Node) == 64);
  [[nodiscard]] CpuDevice& cpu() const noexcept;
  /// Room for a node with its launch struct; null without memory.
  [[nodiscard]] Node* make_node(std::size_t args_bytes);
  void walk(Team& team, int thread, Outcome* outcome) noexcept;

  Node* first_ = nullptr;
  Node* last_ = nullptr;
  std::size_t dispatches_ = 0, barriers_ = 0;
  std::unique_ptr<RecordBlock> blocks_;  // the one being filled first
  std::size_t block_used_ = RecordBlock::kBytes;
  std::vector<std::unique_ptr<CallableCall>> calls_;
  std::atomic<std::uint32_t> failed_;  // index of the first dispatch that failed in the current run
};

}  // namespace mlxn::cpu
