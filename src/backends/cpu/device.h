#pragma once

#include <mutex>
#include <vector>

#include "backends/cpu/team.h"
#include "backends/device_impl.h"
#include "backends/scratch_cache.h"

namespace mlxn::cpu {

class CpuQueue;
struct RecordBlock;

/// The host's processor: a team of threads and the system's memory.
class CpuDevice final : public DeviceImpl {
 public:
  [[nodiscard]] static Result<std::shared_ptr<CpuDevice>> open(const DeviceOptions& options, std::string_view reason);
  [[nodiscard]] static Capabilities describe(int threads, std::string_view reason);

  CpuDevice(std::unique_ptr<Team> team, Capabilities capabilities, const DeviceOptions& device_options);
  ~CpuDevice() override;

  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate(std::uint64_t bytes, const AllocateOptions& options) override;
  [[nodiscard]] Result<std::shared_ptr<QueueImpl>> create_queue() override;
  [[nodiscard]] Result<std::shared_ptr<CommandList>> create_list(const EncoderOptions& options) override;
  [[nodiscard]] Result<void> wait_unused(const Allocation& allocation) override;
  [[nodiscard]] const Capabilities& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] std::uint64_t free_bytes() const noexcept override;

  /// Memory for the scratch of command lists, kept for the next list when it is given back.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_scratch(std::uint64_t bytes);

  /// Memory for what command lists record; null if there is none.
  [[nodiscard]] std::unique_ptr<RecordBlock> take_records() noexcept;
  void give_back_records(std::unique_ptr<RecordBlock> chain) noexcept;

  [[nodiscard]] Team& team() noexcept { return *team_; }
  /// Held while a submission runs: queues take turns on the team.
  std::mutex team_mutex;

 private:
  [[nodiscard]] Result<std::shared_ptr<CpuQueue>> add_queue(std::shared_ptr<CpuDevice> keep);
  [[nodiscard]] Result<void*> take(std::uint64_t bytes, std::uint64_t alignment);
  void* try_take(std::uint64_t bytes, std::uint64_t alignment) noexcept;
  /// Returns the free scratch blocks to the system; whether there were any.
  bool drop_free_scratch() noexcept;
  void give_back(void* data, std::uint64_t bytes, std::uint64_t alignment) noexcept;

  std::unique_ptr<Team> team_;
  Capabilities capabilities_;
  std::mutex mutex_;
  ScratchCache free_scratch_;
  std::unique_ptr<RecordBlock> free_records_;
  std::size_t free_record_count_ = 0;
  std::vector<std::weak_ptr<CpuQueue>> queues_;
};

}  // namespace mlxn::cpu
