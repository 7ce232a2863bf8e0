#pragma once

#include "backends/cuda/device.h"
#include "backends/gpu/command_list.h"
#include "backends/launch.h"

namespace mlxn::cuda {

struct KernelEntry;
class CudaQueue;

/// A portable kernel as nvcc compiled it; null if the build has none of that name.
[[nodiscard]] const KernelEntry* find_kernel(std::string_view name) noexcept;
/// The host's handle of a kernel, looked for once.
[[nodiscard]] const void* kernel_function(const gpu::KernelInfo& kernel) noexcept;

/// Machine code of a user's kernel, loaded on the device.
class UserCode final : public DeviceCode {
 public:
  UserCode(int ordinal, cudaLibrary_t library, cudaKernel_t kernel, std::uint32_t group_threads, std::uint32_t shared_bytes) noexcept
      : ordinal_(ordinal), library_(library), kernel_(kernel), group_threads_(group_threads), shared_bytes_(shared_bytes) {}
  ~UserCode() override;
  UserCode(const UserCode&) = delete;
  UserCode& operator=(const UserCode&) = delete;
  [[nodiscard]] const void* function() const noexcept { return kernel_; }
  [[nodiscard]] int ordinal() const noexcept { return ordinal_; }
  [[nodiscard]] std::uint32_t group_threads() const noexcept { return group_threads_; }
  [[nodiscard]] std::uint32_t shared_bytes() const noexcept { return shared_bytes_; }

 private:
  int ordinal_;
  cudaLibrary_t library_;
  cudaKernel_t kernel_;
  std::uint32_t group_threads_, shared_bytes_;
};

/// The record of launches, run in order on a stream, or as a CUDA graph when it is replayed.
class CudaCommandList final : public gpu::GpuCommandList {
 public:
  CudaCommandList(std::shared_ptr<CudaDevice> device, const EncoderOptions& options);
  ~CudaCommandList() override;

  [[nodiscard]] Result<void> dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) override;
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Tensor& from) override;

  /// Whether replays run as a graph: in serial mode they are issued like other work.
  [[nodiscard]] bool is_graph() const noexcept { return recording_graph && mode_ != HazardMode::serial; }
  /// Makes the graph, unless it is there and launch structs have not changed since. Nothing is submitted.
  [[nodiscard]] Result<void> prepare_graph();
  /// One call: parameters, then all nodes.
  [[nodiscard]] Result<void> launch_graph(cudaStream_t stream);
  /// Puts the nodes on the queue's stream one by one, up to the first that fails; `issued` counts them. In serial mode each is
  /// waited for, so that a fault names its kernel.
  [[nodiscard]] Result<void> issue(const CudaQueue& queue, std::atomic<std::uint64_t>& issued);
  /// The host's share, once the nodes have run: what was downloaded goes to its place.
  void finish() noexcept;
  /// Adds the names of the first `count` nodes, each once.
  void add_names(std::uint64_t count, std::vector<std::string>& names) const;

 protected:
  [[nodiscard]] Result<std::span<std::byte>> stage(std::uint64_t bytes) override;
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_scratch(std::uint64_t bytes) override;
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_counters(std::uint64_t bytes) override;

 private:
  struct UserCall;
  struct Download {
    std::byte* to;
    const std::byte* from;
    std::uint64_t bytes;
  };
  struct KernelCall;
  [[nodiscard]] CudaDevice& cuda() const noexcept { return static_cast<CudaDevice&>(*device_); }
  /// Asks the device for the kernel's shared memory, if that has to be and was not done.
  [[nodiscard]] Result<void> allow_shared(const gpu::KernelInfo& kernel, const void* function);
  [[nodiscard]] Result<void> call_of(const Node& node, KernelCall& call);
  [[nodiscard]] static std::string_view name_of(const Node& node) noexcept;
  [[nodiscard]] Result<void> issue(const Node& node, cudaStream_t stream);
  [[nodiscard]] Result<void> add_to_graph(const Node& node, cudaGraph_t graph, cudaGraphNode_t& last, bool& last_is_kernel);
  [[nodiscard]] Result<void> make_graph();
  void drop_graph() noexcept;

  const bool early_starts_;  // by option
  std::vector<std::unique_ptr<UserCall>> user_calls_;
  std::vector<std::shared_ptr<Allocation>> staging_;
  std::uint64_t staging_used_ = 0;  // of the last block
  std::vector<Download> downloads_;
  std::byte* parameters_ = nullptr;  // the pinned copy that the graph reads
  cudaGraphExec_t exec_ = nullptr;
  std::uint64_t exec_rebinds_ = 0;
};

}  // namespace mlxn::cuda
