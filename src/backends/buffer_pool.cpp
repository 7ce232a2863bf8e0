#include "mlxn/buffer_pool.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "backends/allocation.h"
#include "backends/device_impl.h"
#include "base/check_value.h"

namespace mlxn {

/// A block's memory. While handed out it is known to an Allocation of the requested length, whose end returns it.
struct PoolBlock {
  std::shared_ptr<Allocation> memory;
  const void* pool = nullptr;
  PoolBlock* next = nullptr;  // in the stack of returned blocks
  bool released = false;

  [[nodiscard]] std::uint64_t capacity() const noexcept { return memory->bytes(); }
};

/// Shared by the pool and the blocks that it handed out.
struct BufferPool::State {
  State(std::shared_ptr<DeviceImpl> d, const BufferPoolOptions& o) noexcept : device(std::move(d)), options(o) {}
  ~State() { close(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const std::shared_ptr<DeviceImpl> device;
  const BufferPoolOptions options;
  std::mutex mutex;  // guards what follows, in the thread-safe variant
  std::vector<std::unique_ptr<PoolBlock>> free;  // by capacity; has room for all blocks there are
  std::size_t blocks = 0;
  Statistics statistics;
  // Handles end on any thread, within any lock: a returning block only goes on this stack, which others empty.
  std::atomic<PoolBlock*> returned{nullptr};
  std::atomic<bool> closed{false};

  [[nodiscard]] std::unique_lock<std::mutex> lock() {
    return options.thread_safe ? std::unique_lock(mutex) : std::unique_lock(mutex, std::defer_lock);
  }
  void give_back(PoolBlock* block) noexcept {
    block->next = returned.load();
    while (!returned.compare_exchange_weak(block->next, block)) {
    }
    if (closed) drop_returned();
  }
  void drop_returned() noexcept {
    for (PoolBlock* block = returned.exchange(nullptr); block != nullptr;) delete std::exchange(block, block->next);
  }
  void close() noexcept {
    if (device->is_forked()) return;  // the lock may be held by a thread that is not here
    {
      const auto guard = lock();
      collect();
      free.clear();
    }
    closed = true;
    drop_returned();
  }
  /// Moves returned blocks to the free ones.
  void collect() noexcept {
    for (PoolBlock* block = returned.exchange(nullptr); block != nullptr;) {
      std::unique_ptr<PoolBlock> owned(std::exchange(block, block->next));
      --statistics.in_use_blocks;
      statistics.in_use_bytes -= owned->capacity();
      ++statistics.free_blocks;
      statistics.free_bytes += owned->capacity();
      const auto place = std::upper_bound(free.begin(), free.end(), owned->capacity(),
                                          [](std::uint64_t bytes, const auto& other) { return bytes < other->capacity(); });
      free.insert(place, std::move(owned));
    }
  }
  std::unique_ptr<PoolBlock> remove_free(std::vector<std::unique_ptr<PoolBlock>>::iterator place) noexcept {
    std::unique_ptr<PoolBlock> block = std::move(*place);
    free.erase(place);
    --statistics.free_blocks;
    statistics.free_bytes -= block->capacity();
    return block;
  }
  void trim(std::uint64_t keep_bytes) noexcept {
    while (statistics.free_bytes > keep_bytes) {
      remove_free(free.end() - 1);
      --blocks;
    }
  }
  [[nodiscard]] std::uint64_t held_bytes() const noexcept { return statistics.free_bytes + statistics.in_use_bytes; }
  /// A free block of this capacity, else a fresh one.
  [[nodiscard]] Result<std::unique_ptr<PoolBlock>> take(std::uint64_t capacity, bool& reused);
};

Result<std::unique_ptr<PoolBlock>> BufferPool::State::take(std::uint64_t capacity, bool& reused) {
  collect();
  const auto place = std::lower_bound(free.begin(), free.end(), capacity,
                                      [](const auto& block, std::uint64_t bytes) { return block->capacity() < bytes; });
  reused = place != free.end() && (*place)->capacity() == capacity;
  if (reused) {
    ++statistics.hits;
    return remove_free(place);
  }
  if (const std::uint64_t limit = options.limit_bytes; limit != 0) {
    if (statistics.in_use_bytes > limit || capacity > limit - statistics.in_use_bytes) {
      return make_error(ErrorCode::out_of_memory, "pool: {} bytes wanted, {} of the limit of {} bytes are in use", capacity,
                        statistics.in_use_bytes, limit);
    }
    trim(limit - statistics.in_use_bytes - capacity);
  }
  auto block = std::make_unique<PoolBlock>();
  free.reserve(blocks + 1);
  auto memory = device->allocate(capacity, {});
  if (!memory && memory.error().code() == ErrorCode::out_of_memory && statistics.free_bytes != 0) {
    trim(0);  // what the pool keeps may be what is missing
    memory = device->allocate(capacity, {});
  }
  if (!memory) return memory.error();
  block->memory = *std::move(memory);
  block->pool = this;
  ++blocks;
  ++statistics.misses;
  return block;
}

BufferPool::BufferPool(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}
BufferPool::BufferPool(BufferPool&&) noexcept = default;
BufferPool& BufferPool::operator=(BufferPool&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
BufferPool::~BufferPool() {
  if (state_) state_->close();
}

Result<BufferPool> BufferPool::create(const Device& device, const BufferPoolOptions& options) {
  return detail::guarded([&]() -> Result<BufferPool> {
    if (!device.defined()) return make_error(ErrorCode::invalid_argument, "pool: empty device handle");
    MLXN_CHECK(check_enum("pool", "sizes", options.sizes, PoolSizes::four_per_octave));
    return BufferPool(std::make_shared<State>(device.impl(), options));
  });
}

std::uint64_t BufferPool::block_bytes(std::uint64_t bytes, const BufferPoolOptions& options) noexcept {
  if (bytes <= 1) return 1;
  if (bytes > options.exact_above_bytes || bytes > (std::uint64_t{1} << 62)) return bytes;
  const std::uint64_t octave = std::bit_floor(bytes);
  if (octave == bytes) return bytes;
  const std::uint64_t step = options.sizes == PoolSizes::power_of_two ? octave : std::max<std::uint64_t>(1, octave / 4);
  return (bytes + step - 1) / step * step;
}

Result<Tensor> BufferPool::allocate(DType dtype, const Shape& shape, bool zero) {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!state_) return make_error(ErrorCode::invalid_argument, "pool: empty handle");
    MLXN_CHECK(state_->device->check_fork("pool"));
    MLXN_TRY(const std::uint64_t bytes, allocation_bytes(dtype, shape));
    std::unique_ptr<PoolBlock> block;
    bool reused = false;
    const std::uint64_t capacity = block_bytes(bytes, state_->options);
    {
      const auto lock = state_->lock();
      MLXN_TRY(block, state_->take(capacity, reused));
      Statistics& s = state_->statistics;
      ++s.in_use_blocks;
      s.in_use_bytes += capacity;
      s.peak_bytes = std::max(s.peak_bytes, state_->held_bytes());
    }
    block->released = false;
    std::byte* const data = block->memory->data();
    PoolBlock* const raw = block.release();
    std::shared_ptr<Allocation> allocation;
    try {
      allocation = std::make_shared<Allocation>(state_->device, data, bytes, [state = state_, raw] { state->give_back(raw); });
    } catch (...) {
      state_->give_back(raw);
      throw;
    }
    allocation->pool_block = raw;
    if (zero && reused) std::memset(data, 0, bytes);
    return Tensor::make(std::move(allocation), dtype, shape);
  });
}

Result<void> BufferPool::release(Tensor& tensor) {
  return detail::guarded([&]() -> Result<void> {
    Tensor ended;  // outside the lock
    if (!state_) return make_error(ErrorCode::invalid_argument, "pool: empty handle");
    const std::shared_ptr<Allocation>& allocation = tensor.allocation();
    if (!allocation || allocation->pool_block == nullptr || allocation->pool_block->pool != state_.get()) {
      return make_error(ErrorCode::invalid_argument, "pool: release of memory that this pool did not hand out");
    }
    if (tensor.byte_offset() != 0 || tensor.bytes() != allocation->bytes()) {
      return make_error(ErrorCode::invalid_argument, "pool: release of a view of {} bytes at {}, the block was handed out with {}",
                        tensor.bytes(), tensor.byte_offset(), allocation->bytes());
    }
    const auto lock = state_->lock();
    if (allocation->pool_block->released) return make_error(ErrorCode::wrong_state, "pool: the block was released before");
    allocation->pool_block->released = true;
    ended = std::exchange(tensor, Tensor());
    return {};
  });
}

Result<std::uint64_t> BufferPool::capacity_bytes(const Tensor& tensor) const {
  const std::shared_ptr<Allocation>& allocation = tensor.allocation();
  if (!state_ || !allocation || allocation->pool_block == nullptr || allocation->pool_block->pool != state_.get()) {
    return make_error(ErrorCode::invalid_argument, "pool: capacity of memory that this pool did not hand out");
  }
  return allocation->pool_block->capacity();
}

void BufferPool::trim(std::uint64_t keep_bytes) noexcept {
  if (!state_) return;
  const auto lock = state_->lock();
  state_->collect();
  state_->trim(keep_bytes);
}

BufferPool::Statistics BufferPool::statistics() const noexcept {
  if (!state_) return {};
  const auto lock = state_->lock();
  state_->collect();
  return state_->statistics;
}

}  // namespace mlxn
