#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "backends/command_list.h"
#include "backends/gpu/launch.h"

namespace mlxn::gpu {

/// The record of a GPU: launches, copies and fills in their order, which one in-order lane keeps; nothing needs a join.
/// A backend derives from it to run the nodes.
///
/// Graph parameters stand in device memory, a 64-bit number each, and launch structs point at them (see Index). Setting one
/// changes `parameter_values()`, which the backend brings there before the nodes run.
class GpuCommandList : public CommandList {
 public:
  enum class Kind : std::uint8_t { kernel, user_kernel, copy, upload, download, fill };
  /// A pointer in a node's launch struct and the bytes behind it.
  struct Touch {
    std::uint16_t field;
    Access access;
    std::uint64_t bytes;
  };
  struct Node {
    Kind kind;
    const KernelInfo* kernel;  ///< of Kind::kernel and Kind::user_kernel
    Grid grid;
    std::byte* args;  ///< launch struct, 16-byte aligned; CopyArgs of a copy, FillArgs of a fill; pointers of a user's kernel
    std::uint32_t args_bytes;
    std::uint32_t first_touch, touches;
  };
  /// Of copy (device to device), upload (from staging memory) and download (to the caller's memory).
  struct CopyArgs {
    const std::byte* from;
    std::byte* to;
    std::uint64_t rows, row_bytes, from_pitch, to_pitch;
  };
  struct FillArgs {
    std::byte* to;
    std::uint64_t bytes;
    std::uint32_t value;
  };
  static constexpr std::size_t kMaxParameters = 64;

  using CommandList::CommandList;

  [[nodiscard]] Result<void> encode(const KernelInfo& kernel, Grid grid, const void* args, const LaunchRecord& record);
  [[nodiscard]] Result<Tensor> scratch(std::uint64_t bytes);
  [[nodiscard]] Result<Tensor> counters(std::uint64_t count);

  [[nodiscard]] std::size_t dispatches() const noexcept override { return nodes_.size(); }
  [[nodiscard]] std::size_t barriers() const noexcept override { return 0; }
  [[nodiscard]] Result<void> upload(const Tensor& to, std::span<const std::byte> from) override;
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Tensor& from) override;
  [[nodiscard]] Result<void> copy(const Tensor& to, const Tensor& from) override;
  [[nodiscard]] Result<void> fill(const Tensor& to, std::byte value) override;

  [[nodiscard]] std::span<const Node> nodes() const noexcept { return nodes_; }
  [[nodiscard]] std::span<const Touch> touches(const Node& node) const noexcept {
    return std::span(touches_).subspan(node.first_touch, node.touches);
  }
  /// Where graph parameters stand on the device; null if no launch uses one.
  [[nodiscard]] const std::shared_ptr<Allocation>& parameter_block() const noexcept { return parameter_block_; }
  [[nodiscard]] std::span<const std::int64_t> parameter_values() const noexcept { return parameter_values_; }

 protected:
  /// Records a node whose `args_bytes` of arguments are taken from `args`; the record's fields are offsets in them.
  [[nodiscard]] Result<void> add(std::string_view name, Node node, const void* args, const LaunchRecord& record);
  /// Memory of the host that an upload may be read from as long as the list lives.
  [[nodiscard]] virtual Result<std::span<std::byte>> stage(std::uint64_t bytes) = 0;
  /// Scratch memory of at least so many bytes.
  [[nodiscard]] virtual Result<std::shared_ptr<Allocation>> allocate_scratch(std::uint64_t bytes) = 0;
  /// The same, zero; whoever gets the memory next relies on that it is so when the list has run.
  [[nodiscard]] virtual Result<std::shared_ptr<Allocation>> allocate_counters(std::uint64_t bytes) = 0;

 private:
  static constexpr std::size_t kArgsBlock = std::size_t{32} << 10;
  struct alignas(16) ArgsBlock {
    std::byte data[kArgsBlock];
  };

  [[nodiscard]] Result<void> add_copy(Kind kind, const CopyArgs& args, const LaunchRecord& record);

  std::vector<Node> nodes_;
  std::vector<Touch> touches_;
  std::vector<std::unique_ptr<ArgsBlock>> args_;
  std::size_t args_used_ = kArgsBlock;
  std::shared_ptr<Allocation> parameter_block_, counters_;
  std::array<std::int64_t, kMaxParameters> parameter_values_{};
};

}  // namespace mlxn::gpu
