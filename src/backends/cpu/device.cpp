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
    case CpuIsa::neon: return 4;
    case CpuIsa::scalar: return 1;
  }
  return 1;
}

}  // namespace

Capabilities CpuDevice::describe(int threads, std::string_view reason) {
  Capabilities c;
  c.backend = "cpu";
  c.name = fmt::format("{} ({} thread{}, {})", processor_name(), threads, threads == 1 ? "" : "s", to_string(best_isa()));
  c.selection_reason = reason;
  const SystemMemory memory = system_memory();
  c.total_bytes = memory.total_bytes;
  c.free_bytes = memory.available_bytes;
  c.largest_allocation_bytes = memory.total_bytes;
  c.last_level_cache_bytes = last_level_cache_bytes();
  c.threads = threads;
  c.simd_width = simd_lanes();
  return c;
}

Result<std::shared_ptr<CpuDevice>> CpuDevice::open(const DeviceOptions& options, std::string_view reason) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CpuDevice>> {
    if (options.threads < 0 || options.threads > kMaxThreads) {
      return make_error(ErrorCode::invalid_argument, "cpu: {} threads, wanted 1 to {} (0 for the default)", options.threads,
                        kMaxThreads);
    }
    if (options.max_in_flight < 1) {
      return make_error(ErrorCode::invalid_argument, "cpu: max_in_flight is {}, wanted at least 1", options.max_in_flight);
    }
    const int threads = options.threads == 0 ? usable_cores() : options.threads;
    MLXN_TRY(auto team, Team::create(threads));
    auto device = std::make_shared<CpuDevice>(std::move(team), describe(threads, reason), options);
    MLXN_TRY(device->default_queue_, device->create_queue());
    return device;
  });
}

CpuDevice::CpuDevice(std::unique_ptr<Team> team, Capabilities capabilities, const DeviceOptions& device_options)
    : team_(std::move(team)), capabilities_(std::move(capabilities)) {
  options = device_options;
}

CpuDevice::~CpuDevice() {
  default_queue_.reset();
  for (const Block& block : free_scratch_) system_free(block.data, block.bytes, capabilities_.alignment_bytes);
}

Result<void*> CpuDevice::take(std::uint64_t bytes, std::uint64_t alignment) {
  const std::uint64_t limit = options.memory_limit_bytes;
  const std::uint64_t before = counters.bytes_in_use.fetch_add(bytes, std::memory_order_relaxed);
  const bool fits = limit == 0 || (before <= limit && bytes <= limit - before);
  void* data = fits ? system_allocate(bytes, alignment) : nullptr;
  if (data == nullptr) {
    counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
    if (!fits) {
      return make_error(ErrorCode::out_of_memory, "cpu: {} bytes wanted, {} of the limit of {} bytes are in use", bytes, before,
                        limit);
    }
    return make_error(ErrorCode::out_of_memory, "cpu: the system refused {} bytes, {} are available", bytes,
                      system_memory().available_bytes);
  }
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t peak = counters.peak_bytes_in_use.load(std::memory_order_relaxed);
  while (peak < before + bytes &&
         !counters.peak_bytes_in_use.compare_exchange_weak(peak, before + bytes, std::memory_order_relaxed)) {
  }
  return data;
}

void CpuDevice::give_back(void* data, std::uint64_t bytes, std::uint64_t alignment) noexcept {
  system_free(data, bytes, alignment);
  counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
}

Result<std::shared_ptr<Allocation>> CpuDevice::allocate(std::uint64_t bytes, const AllocateOptions& allocate_options) {
  // System memory comes zeroed, so `zero` costs nothing to keep.
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<Allocation>> {
    const std::uint64_t alignment = std::max<std::uint64_t>(allocate_options.alignment_bytes, capabilities_.alignment_bytes);
    MLXN_TRY(void* data, take(bytes, alignment));
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
    Block block{nullptr, 0};
    {
      const std::lock_guard lock(mutex_);
      free_scratch_.reserve(free_scratch_.size() + 1);
      // The smallest free block that holds the request and wastes no more than three quarters of itself.
      auto best = free_scratch_.end();
      for (auto it = free_scratch_.begin(); it != free_scratch_.end(); ++it) {
        if (it->bytes >= bytes && it->bytes / 4 <= bytes && (best == free_scratch_.end() || it->bytes < best->bytes)) best = it;
      }
      if (best != free_scratch_.end()) {
        block = *best;
        free_scratch_.erase(best);
      }
    }
    const std::uint64_t alignment = capabilities_.alignment_bytes;
    if (block.data == nullptr) {
      block.bytes = (std::max<std::uint64_t>(bytes, 1) + alignment - 1) / alignment * alignment;
      MLXN_TRY(block.data, take(block.bytes, alignment));
    }
    try {
      auto self = std::static_pointer_cast<CpuDevice>(shared_from_this());
      return std::make_shared<Allocation>(self, static_cast<std::byte*>(block.data), block.bytes, [device = self.get(), block] {
        constexpr std::size_t kKeep = 16;
        {
          const std::lock_guard lock(device->mutex_);
          if (device->free_scratch_.size() < kKeep && device->free_scratch_.size() < device->free_scratch_.capacity()) {
            device->free_scratch_.push_back(block);
            return;
          }
        }
        device->give_back(block.data, block.bytes, device->capabilities_.alignment_bytes);
      });
    } catch (...) {
      give_back(block.data, block.bytes, alignment);
      throw;
    }
  });
}

Result<std::shared_ptr<QueueImpl>> CpuDevice::create_queue() {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<QueueImpl>> {
    auto queue = std::make_shared<CpuQueue>(*this);
    const std::lock_guard lock(mutex_);
    std::erase_if(queues_, [](const auto& q) { return q.expired(); });
    queues_.push_back(queue);
    return std::static_pointer_cast<QueueImpl>(queue);
  });
}

Result<std::unique_ptr<CommandList>> CpuDevice::create_list(const EncoderOptions& encoder_options) {
  return mlxn::detail::guarded([&]() -> Result<std::unique_ptr<CommandList>> {
    return std::unique_ptr<CommandList>(
        std::make_unique<CpuCommandList>(std::static_pointer_cast<CpuDevice>(shared_from_this()), encoder_options));
  });
}

Result<void> CpuDevice::wait_unused(const Allocation& allocation) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    if (!allocation.in_use()) return {};
    if (Team::inside()) {
      return make_error(ErrorCode::wrong_state, "cpu: a kernel asked for memory that running work uses");
    }
    count_sync(*this);
    std::vector<std::shared_ptr<CpuQueue>> queues;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& weak : queues_) {
        if (auto queue = weak.lock()) queues.push_back(std::move(queue));
      }
    }
    for (const auto& queue : queues) {
      if (!allocation.in_use()) break;
      queue->drain();
    }
    return {};
  });
}

}  // namespace mlxn::cpu
