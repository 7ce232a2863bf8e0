#pragma once

#include <cstdint>
#include <memory>

#include "mlxn/device.h"

namespace mlxn {

/// How a pool rounds requests up to block sizes.
enum class PoolSizes : std::uint8_t {
  power_of_two,     ///< 1, 2, 4, 8, ...
  four_per_octave,  ///< ..., 4, 5, 6, 7, 8, 10, 12, 14, 16, ...: at most a quarter of a block is unused
};

struct BufferPoolOptions {
  PoolSizes sizes = PoolSizes::four_per_octave;
  std::uint64_t exact_above_bytes = std::uint64_t{64} << 20;  ///< larger requests get blocks of exactly their size
  std::uint64_t limit_bytes = 0;  ///< of free and handed-out blocks together; 0 sets no limit
  /// Whether several threads may call the pool at the same time. Handles may go away on any thread either way.
  bool thread_safe = true;
};

/// Keeps freed blocks of a device's memory for later requests. A block is free again when its last handle is gone, those
/// that unfinished submissions hold included: no live memory is handed out twice. release() is for callers who want to be
/// told of mistakes; dropping the handles does as well.
class BufferPool {
 public:
  struct Statistics {
    std::uint64_t free_blocks = 0, free_bytes = 0;
    std::uint64_t in_use_blocks = 0, in_use_bytes = 0;  ///< capacities, not requests
    std::uint64_t peak_bytes = 0;                       ///< the most that free and handed-out blocks took together
    std::uint64_t hits = 0, misses = 0;                 ///< requests served from free blocks, and from the device
  };

  /// Errors: invalid_argument, out_of_memory.
  [[nodiscard]] static Result<BufferPool> create(const Device& device, const BufferPoolOptions& options = {});
  BufferPool() = default;
  BufferPool(BufferPool&&) noexcept;
  BufferPool& operator=(BufferPool&&) noexcept;
  /// Free blocks go to the device, the others once they come back.
  ~BufferPool();

  /// A tensor of exactly this size in a block that may be larger. Its contents are unspecified unless `zero` is set.
  /// Errors: as Device::allocate; out_of_memory beyond the pool's limit too.
  [[nodiscard]] Result<Tensor> allocate(DType dtype, const Shape& shape, bool zero = false);
  /// Gives up this handle and says that the block is done with. The block is reused once all other handles are gone too.
  /// Errors, which leave the handle alone: invalid_argument for memory of another origin or a view of a part of the block,
  /// wrong_state for a block that was released before.
  [[nodiscard]] Result<void> release(Tensor& tensor);
  /// Bytes of the block behind a tensor of this pool. Errors: invalid_argument for other memory.
  [[nodiscard]] Result<std::uint64_t> capacity_bytes(const Tensor& tensor) const;
  /// Returns free blocks to the device, the largest first, until at most `keep_bytes` stay free.
  void trim(std::uint64_t keep_bytes = 0) noexcept;
  [[nodiscard]] Statistics statistics() const noexcept;

  /// The capacity that a request of `bytes` gets.
  [[nodiscard]] static std::uint64_t block_bytes(std::uint64_t bytes, const BufferPoolOptions& options) noexcept;

 private:
  struct State;
  explicit BufferPool(std::shared_ptr<State> state) noexcept;
  std::shared_ptr<State> state_;
};

}  // namespace mlxn
