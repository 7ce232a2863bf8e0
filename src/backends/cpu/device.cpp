#include "backends/cpu/device.h"

#include <algorithm>

#include "backends/cpu/command_list.h"
#include "backends/cpu/queue.h"
#include "base/cpu_features.h"
#include "base/error.h"
#include "base/system_memory.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mlxn::cpu {
namespace {

std::string processor_name() {
#if defined(__x86_64__)
  std::string name;
  for (unsigned leaf = 0x80000002u; leaf <= 0x80000004u; ++leaf) {
    unsigned r[4] = {};
    if (__get_cpuid(leaf, &r[0], &r[1], &r[2], &r[3]) == 0) break;
    name.append(reinterpret_cast<const char*>(r), sizeof(r));
  }
  name.resize(std::min(name.size(), name.find('\0')));
  while (!name.empty() && name.back() == ' ') name.pop_back();
  return name.empty() ? "x86-64" : name;
#else
  return "ARM64";
#endif
}

std::uint32_t simd_lanes() noexcept {
  switch (best_isa()) {
    case CpuIsa::avx512: return 16;
    case CpuIsa::avx2: return 8;
    case CpuIsa::neon:
    case CpuIsa::neon_dotprod:
    case CpuIsa::neon_i8mm: return 4;
    case CpuIsa::scalar: return 1;
  }
  return 1;
}

constexpr std::size_t kFreeRecordBlocks = 64;  // 2 MiB
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 48;  // beyond any machine's memory, and sums of them stay in 64 bits

}  // namespace

Capabilities CpuDevice::describe(int threads, std::string_view reason) {
  Capabilities c;
  c.backend = "cpu";
  c.id = "cpu";
  c.name = fmt::format("{} ({} thread{}, {})", processor_name(), threads, threads == 1 ? "" : "s", to_string(best_isa()));
  c.selection_reason = reason;
  const SystemMemory memory = system_memory();
  c.total_bytes = memory.total_bytes;
  c.free_bytes = memory.available_bytes;
  c.largest_allocation_bytes = memory.total_bytes;
  c.last_level_cache_bytes = last_level_cache_bytes();
  c.threads = threads;
  c.compute_units = threads;
  c.simd_width = simd_lanes();
  return c;
}

Result<std::shared_ptr<CpuDevice>> CpuDevice::open(const DeviceOptions& options, std::string_view reason) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CpuDevice>> {
    MLXN_CHECK(check_options("cpu", options));
    const int threads = options.threads == 0 ? usable_cores() : options.threads;
    MLXN_TRY(auto team, Team::create(threads));
    std::shared_ptr<CpuDevice> device(new CpuDevice(std::move(team), describe(threads, reason), options), EndAtHome());
    MLXN_TRY(device->default_queue_, device->add_queue(nullptr));
    return device;
  });
}

CpuDevice::CpuDevice(std::unique_ptr<Team> team, Capabilities capabilities, const DeviceOptions& device_options)
    : team_(std::move(team)), capabilities_(std::move(capabilities)) {
  options = device_options;
}

CpuDevice::~CpuDevice() {
  default_queue_.reset();
  drop_free_scratch();
  while (free_records_) free_records_ = std::move(free_records_->next);
}

std::uint64_t CpuDevice::free_bytes() const noexcept {
  const std::uint64_t available = system_memory().available_bytes, limit = options.memory_limit_bytes;
  const std::uint64_t used = counters.bytes_in_use.load(std::memory_order_relaxed);
  return limit == 0 ? available : std::min(available, limit > used ? limit - used : 0);
}

std::unique_ptr<RecordBlock> CpuDevice::take_records() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (free_records_) {
      std::unique_ptr<RecordBlock> block = std::move(free_records_);
      free_records_ = std::move(block->next);
      --free_record_count_;
      return block;
    }
  }
  return std::unique_ptr<RecordBlock>(new (std::nothrow) RecordBlock);
}

void CpuDevice::give_back_records(std::unique_ptr<RecordBlock> chain) noexcept {
  const bool forked = is_forked();  // the lock may be held by a thread that is not here
  while (chain) {
    std::unique_ptr<RecordBlock> block = std::move(chain);
    chain = std::move(block->next);
    if (forked) continue;
    const std::lock_guard lock(mutex_);
    if (free_record_count_ == kFreeRecordBlocks) continue;
    block->next = std::move(free_records_);
    free_records_ = std::move(block);
    ++free_record_count_;
  }
}

bool CpuDevice::drop_free_scratch() noexcept {
  bool any = false;
  while (const auto block = free_scratch_.pop()) {
    give_back(block->data, block->bytes, capabilities_.alignment_bytes);
    any = true;
  }
  return any;
}

void* CpuDevice::try_take(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  const std::uint64_t limit = options.memory_limit_bytes;
  const std::uint64_t before = counters.bytes_in_use.fetch_add(bytes, std::memory_order_relaxed);
  const bool fits = limit == 0 || (before <= limit && bytes <= limit - before);
  void* data = fits ? system_allocate(bytes, alignment) : nullptr;
  if (data == nullptr) {
    counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
    return nullptr;
  }
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t peak = counters.peak_bytes_in_use.load(std::memory_order_relaxed);
  while (peak < before + bytes &&
         !counters.peak_bytes_in_use.compare_exchange_weak(peak, before + bytes, std::memory_order_relaxed)) {
  }
  return data;
}

Result<void*> CpuDevice::take(std::uint64_t bytes, std::uint64_t alignment) {
  if (bytes > kMostBytes) return make_error(ErrorCode::out_of_memory, "cpu: {} bytes wanted", bytes);
  void* data = try_take(bytes, alignment);
  if (data == nullptr && drop_free_scratch()) data = try_take(bytes, alignment);
  if (data != nullptr) return data;
  if (options.memory_limit_bytes != 0) {
    return make_error(ErrorCode::out_of_memory, "cpu: {} bytes wanted, {} of the limit of {} bytes are in use", bytes,
                      counters.bytes_in_use.load(std::memory_order_relaxed), options.memory_limit_bytes);
  }
  return make_error(ErrorCode::out_of_memory, "cpu: the system refused {} bytes, {} are available", bytes,
                    system_memory().available_bytes);
}

void CpuDevice::give_back(void* data, std::uint64_t bytes, std::uint64_t alignment) noexcept {
  system_free(data, bytes, alignment);
  counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
}

Result<std::shared_ptr<Allocation>> CpuDevice::allocate(std::uint64_t bytes, const AllocateOptions& allocate_options) {
  // System memory comes zeroed, so `zero` costs nothing to keep. Who does without it is about to write all of the memory.
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<Allocation>> {
    const std::uint64_t alignment = std::max<std::uint64_t>(allocate_options.alignment_bytes, capabilities_.alignment_bytes);
    MLXN_TRY(void* data, take(bytes, alignment));
    if (!allocate_options.zero) prefer_huge_pages(data, bytes, alignment);
    try {
      auto self = std::static_pointer_cast<CpuDevice>(shared_from_this());
      return std::make_shared<Allocation>(self, static_cast<std::byte*>(data), bytes,
                                          [device = self.get(), data, bytes, alignment] {
                                            // The allocation still holds the device while this runs.
                                            device->give_back(data, bytes, alignment);
                                          });
    } catch (...) {
      give_back(data, bytes, alignment);
      throw;
    }
  });
}

Result<std::shared_ptr<Allocation>> CpuDevice::allocate_scratch(std::uint64_t bytes) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<Allocation>> {
    ScratchCache::Block block = free_scratch_.take(bytes).value_or(ScratchCache::Block{});
    const std::uint64_t alignment = capabilities_.alignment_bytes;
    if (block.data == nullptr) {
      block.bytes = (std::max<std::uint64_t>(bytes, 1) + alignment - 1) / alignment * alignment;
      MLXN_TRY(block.data, take(block.bytes, alignment));
    }
    try {
      auto self = std::static_pointer_cast<CpuDevice>(shared_from_this());
      auto scratch = std::make_shared<Allocation>(
          self, static_cast<std::byte*>(block.data), block.bytes, [device = self.get(), block] {
            if (!device->is_forked() && device->free_scratch_.keep(block)) return;
            device->give_back(block.data, block.bytes, device->capabilities_.alignment_bytes);
          });
      scratch->scratch = true;
      return scratch;
    } catch (...) {
      give_back(block.data, block.bytes, alignment);
      throw;
    }
  });
}

Result<std::shared_ptr<CpuQueue>> CpuDevice::add_queue(std::shared_ptr<CpuDevice> keep) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CpuQueue>> {
    std::shared_ptr<CpuQueue> queue(new CpuQueue(*this, std::move(keep)), EndAtHome());
    const std::lock_guard lock(mutex_);
    const auto free = std::find_if(queues_.begin(), queues_.end(), [](const auto& q) { return q.expired(); });
    if (free != queues_.end()) {
      *free = queue;
    } else {
      queues_.push_back(queue);
    }
    return queue;
  });
}

Result<std::shared_ptr<QueueImpl>> CpuDevice::create_queue() {
  MLXN_TRY(auto queue, add_queue(std::static_pointer_cast<CpuDevice>(shared_from_this())));
  return std::shared_ptr<QueueImpl>(std::move(queue));
}

Result<std::shared_ptr<CommandList>> CpuDevice::create_list(const EncoderOptions& encoder_options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CommandList>> {
    return std::make_shared<CpuCommandList>(std::static_pointer_cast<CpuDevice>(shared_from_this()), encoder_options);
  });
}

Result<void> CpuDevice::wait_unused(const Allocation& allocation) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    // One queue at a time: no list of them to allocate, and a queue that nobody holds any more has nothing to wait for.
    std::unique_lock lock(mutex_);
    for (std::size_t i = 0; i < queues_.size(); ++i) {
      std::shared_ptr<CpuQueue> queue = queues_[i].lock();
      if (!queue) continue;
      lock.unlock();
      MLXN_CHECK(queue->wait_unused(allocation));
      queue.reset();  // perhaps the last handle, whose end takes the lock
      lock.lock();
    }
    return {};
  });
}

}  // namespace mlxn::cpu
