#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>

#include "backends/cpu/team.h"
#include "backends/cuda/runtime.h"

namespace mlxn::cuda {

class CudaDevice;

/// Copies between the memory of the host and of the device, one at a time, on a stream of its own. Pinned memory is copied
/// as it lies; other memory goes through two pinned buffers, one being filled (or emptied) by a few threads while the other
/// one's bytes are on their way, so that the link and not the host's copying sets the pace.
class Transfer {
 public:
  explicit Transfer(CudaDevice& device) noexcept : device_(device) {}
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  ~Transfer();
  /// Makes the stream.
  [[nodiscard]] Result<void> open();

  /// Done when they return, ordered behind all work that was submitted to the device before.
  [[nodiscard]] Result<void> upload(std::byte* to, std::span<const std::byte> from);
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const std::byte* from);
  /// Sets memory that no work uses yet.
  [[nodiscard]] Result<void> zero(std::byte* to, std::uint64_t bytes);

  /// The bytes of a piece when `bytes` go through the two buffers: small enough that filling one and sending the other
  /// overlap, large enough that starting a copy does not count.
  [[nodiscard]] static std::uint64_t piece_bytes(std::uint64_t bytes) noexcept;

 private:
  struct Buffer {
    std::byte* data = nullptr;
    cudaEvent_t idle = nullptr;  // its last copy has ended
  };
  [[nodiscard]] Result<void> begin();
  [[nodiscard]] Result<void> make_buffers();
  [[nodiscard]] Result<void> finish(std::string_view what, cudaError_t code);
  [[nodiscard]] cudaError_t send(std::byte* to, std::span<const std::byte> from) noexcept;
  [[nodiscard]] cudaError_t fetch(std::span<std::byte> to, const std::byte* from) noexcept;
  void host_copy(std::byte* to, const std::byte* from, std::uint64_t bytes) noexcept;

  CudaDevice& device_;
  std::mutex mutex_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t order_ = nullptr;
  Buffer buffers_[2];
  std::unique_ptr<Team> team_;
  bool has_team_ = false;  // or was refused one
};

/// Whether the address is of memory that copies reach without a detour: pinned, managed or the device's own.
[[nodiscard]] bool is_pinned(const void* data) noexcept;

}  // namespace mlxn::cuda
