#include "backends/simt/device.h"

#include <cstdlib>
#include <cstring>

#include "backends/backend.h"
#include "backends/simt/queue.h"
#include "base/error.h"
#include "base/system_memory.h"

namespace mlxn::simt {
namespace {

Result<std::shared_ptr<DeviceImpl>> open_emulator(int ordinal, const DeviceOptions& options, std::string_view) {
  if (ordinal != 0) return make_error(ErrorCode::not_found, "simt: there is one emulator, number 0, not {}", ordinal);
  MLXN_TRY(auto device, SimtDevice::open(options));
  return std::shared_ptr<DeviceImpl>(std::move(device));
}

Result<void> enumerate(std::vector<Capabilities>& devices) {
  devices.push_back(SimtDevice::describe());
  return {};
}

}  // namespace

void add_emulator() {
  static std::once_flag once;
  std::call_once(once, [] { add_backend({"simt", &open_emulator, nullptr, &enumerate}); });
}

Capabilities SimtDevice::describe() {
  Capabilities c;
  c.backend = "simt";
  c.id = "simt";
  c.name = "emulator of the portable GPU kernels";
  c.unified_memory = false;
  const SystemMemory memory = system_memory();
  c.total_bytes = memory.total_bytes;
  c.free_bytes = memory.available_bytes;
  c.largest_allocation_bytes = memory.total_bytes;
  c.threads = 1024;
  c.compute_units = 4;
  c.group_memory_bytes = 48 << 10;
  c.simd_width = 32;
  return c;
}

Result<std::shared_ptr<SimtDevice>> SimtDevice::open(const DeviceOptions& options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<SimtDevice>> {
    auto device = std::make_shared<SimtDevice>(options);
    device->default_queue_ = std::make_shared<SimtQueue>(*device, nullptr);
    return device;
  });
}

SimtDevice::SimtDevice(const DeviceOptions& device_options) : capabilities_(describe()) {
  options = device_options;
  const char* seed = std::getenv("MLXN_TEST_SEED");
  seed_ = seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10) << 32;
}

std::uint64_t SimtDevice::free_bytes() const noexcept {
  const std::uint64_t available = system_memory().available_bytes, limit = options.memory_limit_bytes;
  const std::uint64_t used = counters.bytes_in_use.load(std::memory_order_relaxed);
  return limit == 0 ? available : std::min(available, limit > used ? limit - used : 0);
}

Result<std::shared_ptr<Allocation>> SimtDevice::allocate(std::uint64_t bytes, const AllocateOptions& allocate_options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<Allocation>> {
    const std::uint64_t alignment = std::max<std::uint64_t>(allocate_options.alignment_bytes, capabilities_.alignment_bytes);
    const std::uint64_t limit = options.memory_limit_bytes, used = counters.bytes_in_use.load(std::memory_order_relaxed);
    if (limit != 0 && (used > limit || bytes > limit - used)) {
      return make_error(ErrorCode::out_of_memory, "simt: {} bytes wanted, {} of the limit of {} bytes are in use", bytes, used, limit);
    }
    void* const data = system_allocate(bytes, alignment);
    if (data == nullptr) return make_error(ErrorCode::out_of_memory, "simt: the system refused {} bytes", bytes);
    // Memory that was not asked to be zero is NaN, whatever it is read as.
    if (!allocate_options.zero) std::memset(data, 0xff, bytes);
    counters.bytes_in_use.fetch_add(bytes, std::memory_order_relaxed);
    counters.allocations.fetch_add(1, std::memory_order_relaxed);
    auto self = std::static_pointer_cast<SimtDevice>(shared_from_this());
    auto allocation = std::make_shared<Allocation>(self, static_cast<std::byte*>(data), bytes, [device = self.get(), data, bytes, alignment] {
      system_free(data, bytes, alignment);
      device->counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
    });
    allocation->cpu_visible = allocate_options.kind == MemoryKind::pinned || allocate_options.kind == MemoryKind::shared;
    return allocation;
  });
}

Result<std::shared_ptr<QueueImpl>> SimtDevice::create_queue() {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<QueueImpl>> {
    return std::make_shared<SimtQueue>(*this, std::static_pointer_cast<SimtDevice>(shared_from_this()));
  });
}

Result<std::shared_ptr<CommandList>> SimtDevice::create_list(const EncoderOptions& encoder_options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CommandList>> {
    return std::make_shared<SimtCommandList>(shared_from_this(), encoder_options);
  });
}

Result<void> SimtDevice::wait_unused(const Allocation&) { return {}; }

Result<void> SimtDevice::upload(const Allocation& to, std::uint64_t offset, std::span<const std::byte> from) {
  if (!from.empty()) std::memcpy(to.data() + offset, from.data(), from.size());
  return {};
}

Result<void> SimtDevice::download(std::span<std::byte> to, const Allocation& from, std::uint64_t offset) {
  if (!to.empty()) std::memcpy(to.data(), from.data() + offset, to.size());
  return {};
}

}  // namespace mlxn::simt
