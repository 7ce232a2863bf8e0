#include "mlxn/device.h"

#include <cstring>
#include <mutex>

#include "backends/backend.h"
#include "backends/command_list.h"
#include "backends/cpu/device.h"
#include "backends/cuda/backend.h"
#include "backends/device_impl.h"
#include "backends/queue_impl.h"
#include "base/check_value.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/system_memory.h"
#include "mlxn/encoder.h"
#include "ops/check.h"

namespace mlxn {
namespace {

struct ProcessSums {
  std::atomic<std::uint64_t> dispatches{0}, syncs{0};
};
ProcessSums& process_sums() noexcept {
  static ProcessSums sums;
  return sums;
}

constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;

}  // namespace

ProcessCounters process_counters() noexcept {
  return {process_sums().dispatches.load(std::memory_order_relaxed), process_sums().syncs.load(std::memory_order_relaxed)};
}

void reset_process_counters() noexcept {
  process_sums().dispatches.store(0, std::memory_order_relaxed);
  process_sums().syncs.store(0, std::memory_order_relaxed);
}

void count_dispatches_encoded(DeviceImpl& device, std::uint64_t n) noexcept {
  device.counters.dispatches_encoded.fetch_add(n, std::memory_order_relaxed);
  process_sums().dispatches.fetch_add(n, std::memory_order_relaxed);
}

void count_sync(DeviceImpl& device) noexcept {
  device.counters.syncs.fetch_add(1, std::memory_order_relaxed);
}

void count_commit_and_wait() noexcept { process_sums().syncs.fetch_add(1, std::memory_order_relaxed); }

Counters AtomicCounters::snapshot() const noexcept {
  Counters c;
  c.dispatches_encoded = dispatches_encoded.load(std::memory_order_relaxed);
  c.dispatches_executed = dispatches_executed.load(std::memory_order_relaxed);
  c.barriers = barriers.load(std::memory_order_relaxed);
  c.submissions = submissions.load(std::memory_order_relaxed);
  c.syncs = syncs.load(std::memory_order_relaxed);
  c.allocations = allocations.load(std::memory_order_relaxed);
  c.bytes_in_use = bytes_in_use.load(std::memory_order_relaxed);
  c.peak_bytes_in_use = peak_bytes_in_use.load(std::memory_order_relaxed);
  c.graph_launches = graph_launches.load(std::memory_order_relaxed);
  return c;
}

Result<void> DeviceImpl::upload(const Allocation&, std::uint64_t, std::span<const std::byte>) {
  return make_error(ErrorCode::internal, "upload: all memory of {} is visible to the CPU", capabilities().backend);
}
Result<void> DeviceImpl::download(std::span<std::byte>, const Allocation&, std::uint64_t) {
  return make_error(ErrorCode::internal, "download: all memory of {} is visible to the CPU", capabilities().backend);
}

Result<void> DeviceImpl::check_fork(std::string_view what) const noexcept {
  if (!is_forked()) return {};
  return make_error(ErrorCode::wrong_state, "{}: the process has forked since the device was opened: open a device in the child", what);
}

void EndAtHome::operator()(DeviceImpl* device) const noexcept {
  if (!device->is_forked()) delete device;
}
void EndAtHome::operator()(QueueImpl* queue) const noexcept {
  if (!queue->device().is_forked()) delete queue;
}

Result<bool> DeviceImpl::check_import(const void*, std::uint64_t) { return true; }
Result<void> DeviceImpl::tensor_map(gpu::TensorMap&, const gpu::TensorMapSpec&) {
  return make_error(ErrorCode::unsupported, "{}: has no tensor copies", capabilities().id);
}
Result<void> DeviceImpl::move_tensor_map(gpu::TensorMap&, const std::byte*) {
  return make_error(ErrorCode::unsupported, "{}: has no tensor copies", capabilities().id);
}

Result<std::shared_ptr<const DeviceCode>> DeviceImpl::compile(const KernelInfo& info, const CudaSource&) {
  return make_error(ErrorCode::unsupported, "{}: a device of {} runs no CUDA source", info.name, capabilities().backend);
}

Result<void> check_options(std::string_view backend, const DeviceOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return make_error(ErrorCode::invalid_argument, "{}: {} threads, wanted 1 to {} (0 for the default)", backend, options.threads,
                      kMaxThreads);
  }
  if (options.max_in_flight < 1) {
    return make_error(ErrorCode::invalid_argument, "{}: max_in_flight is {}, wanted at least 1", backend, options.max_in_flight);
  }
  return {};
}

namespace {

struct Backends {
  std::mutex mutex;
  std::vector<Backend> list = {cuda::backend()};
};
/// Those besides the CPU.
Backends& backends() {
  static Backends all;
  return all;
}
std::vector<Backend> gpu_backends() {
  Backends& all = backends();
  const std::lock_guard lock(all.mutex);
  return all.list;
}

}  // namespace

void add_backend(const Backend& backend) {
  Backends& all = backends();
  const std::lock_guard lock(all.mutex);
  all.list.push_back(backend);
}

Result<Device> Device::open(std::string_view name, const DeviceOptions& options) {
  return detail::guarded([&]() -> Result<Device> {
    const std::string_view kind = name.substr(0, name.find(':'));
    const std::string_view number = name.size() > kind.size() ? name.substr(kind.size() + 1) : "0";
    const bool is_number =
        !number.empty() && number.size() <= 4 && number.find_first_not_of("0123456789") == std::string_view::npos;
    if (is_number) {
      for (const Backend& backend : gpu_backends()) {
        if (backend.name != kind) continue;
        int ordinal = 0;
        for (const char digit : number) ordinal = ordinal * 10 + (digit - '0');
        MLXN_TRY(auto device, backend.open(ordinal, options, ""));
        return Device(std::move(device));
      }
    }
    if (name == "metal") {
      return make_error(ErrorCode::unsupported, "device: '{}' is not in this build, which has: cpu", name);
    }
    if (name != "auto" && name != "cpu") {
      return make_error(ErrorCode::invalid_argument, "device: '{}' is unknown, wanted auto, cpu, cuda, cuda:N or metal", name);
    }
    std::string reason;
    if (name == "auto") {
      MLXN_CHECK(check_options("device", options));
      for (const Backend& backend : gpu_backends()) {
        if (backend.open_best == nullptr) continue;
        auto device = backend.open_best(options);
        if (device) return Device(*std::move(device));
        reason = device.error().message();
        // An error whose text there was no memory for does not say why.
        if (reason == mlxn::to_string(device.error().code())) return Error(ErrorCode::out_of_memory);
      }
    }
    MLXN_TRY(auto device, cpu::CpuDevice::open(options, reason));
    return Device(std::move(device));
  });
}

Result<std::vector<Capabilities>> Device::enumerate() {
  return detail::guarded([]() -> Result<std::vector<Capabilities>> {
    std::vector<Capabilities> all;
    all.push_back(cpu::CpuDevice::describe(usable_cores(), ""));
    for (const Backend& backend : gpu_backends()) MLXN_CHECK(backend.enumerate(all));
    return all;
  });
}

const Capabilities& Device::capabilities() const noexcept {
  static const Capabilities none;
  return impl_ ? impl_->capabilities() : none;
}
std::uint64_t Device::free_bytes() const noexcept { return impl_ ? impl_->free_bytes() : 0; }
Counters Device::counters() const noexcept { return impl_ ? impl_->counters.snapshot() : Counters{}; }
KernelRegistry& Device::kernels() const noexcept {
  static KernelRegistry none(nullptr);
  return impl_ ? impl_->registry : none;
}

Result<std::uint64_t> allocation_bytes(DType dtype, const Shape& shape) {
  MLXN_CHECK(check_dtype("allocate", dtype));
  if (shape.rank() > kMaxRank) return make_error(ErrorCode::bad_shape, "allocate: more than {} axes", kMaxRank);
  std::optional<std::uint64_t> count = 1;
  for (const std::int64_t d : shape) {
    count = d < 0 || !count ? std::nullopt : checked_mul(*count, static_cast<std::uint64_t>(d));
  }
  if (!count) return make_error(ErrorCode::bad_shape, "allocate: shape {} is negative or too large", ops::to_string(shape));
  if (*count == 0) return make_error(ErrorCode::bad_shape, "allocate: shape {} has no elements, wanted at least one", ops::to_string(shape));
  const auto bytes = storage_bytes(dtype, *count);
  if (!bytes) {
    return make_error(ErrorCode::bad_shape, "allocate: {} elements are no whole blocks of {} or overflow", *count,
                      mlxn::to_string(dtype));
  }
  return *bytes;
}

Result<Tensor> Device::allocate(DType dtype, const Shape& shape, const AllocateOptions& options) const {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!impl_) return make_error(ErrorCode::invalid_argument, "allocate: empty device handle");
    MLXN_CHECK(impl_->check_fork("allocate"));
    const std::uint64_t alignment = options.alignment_bytes;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kMaxAlignment) {
      return make_error(ErrorCode::invalid_argument, "allocate: alignment {} is no power of two up to {}", alignment, kMaxAlignment);
    }
    MLXN_CHECK(check_enum("allocate", "kind", options.kind, MemoryKind::pinned));
    MLXN_TRY(const std::uint64_t bytes, allocation_bytes(dtype, shape));
    MLXN_TRY(auto allocation, impl_->allocate(bytes, options));
    return Tensor::make(std::move(allocation), dtype, shape);
  });
}

Result<Tensor> Device::import_memory(void* data, std::uint64_t bytes, std::function<void()> deleter, DType dtype,
                                     const Shape& shape) const {
  std::shared_ptr<Allocation> allocation;
  auto result = detail::guarded([&]() -> Result<Tensor> {
    if (!impl_) return make_error(ErrorCode::invalid_argument, "import: empty device handle");
    MLXN_CHECK(impl_->check_fork("import"));
    if (data == nullptr || bytes == 0) return make_error(ErrorCode::invalid_argument, "import: no memory ({} bytes)", bytes);
    MLXN_TRY(const bool cpu_visible, impl_->check_import(data, bytes));
    allocation = std::make_shared<Allocation>(impl_, static_cast<std::byte*>(data), bytes, nullptr);
    allocation->cpu_visible = cpu_visible;
    allocation->set_release(std::move(deleter));
    return Tensor::make(allocation, dtype, shape);
  });
  if (allocation || !deleter) return result;
  try {
    deleter();  // the promise to call it once holds on failure too
  } catch (...) {  // a deleter's exception has nowhere to go
  }
  return result;
}

Result<Queue> Device::create_queue() const {
  if (!impl_) return make_error(ErrorCode::invalid_argument, "create_queue: empty device handle");
  MLXN_CHECK(impl_->check_fork("create_queue"));
  MLXN_TRY(auto queue, impl_->create_queue());
  return Queue(std::move(queue));
}

Queue Device::default_queue() const noexcept {
  // The device owns its default queue, so a handle of the queue has to hold the device.
  return impl_ ? Queue(std::shared_ptr<QueueImpl>(impl_, impl_->default_queue().get())) : Queue();
}

Result<CommandEncoder> Device::encoder() const { return encoder(EncoderOptions{}); }

Result<CommandEncoder> Device::encoder(const EncoderOptions& options) const {
  if (!impl_) return make_error(ErrorCode::invalid_argument, "encoder: empty device handle");
  MLXN_CHECK(impl_->check_fork("encoder"));
  MLXN_CHECK(check_enum("encoder", "hazards", options.hazards, HazardMode::serial));
  Queue queue = options.queue.defined() ? options.queue : default_queue();
  if (&queue.impl_->device() != impl_.get()) {
    return make_error(ErrorCode::wrong_device, "encoder: the queue belongs to another device");
  }
  MLXN_TRY(auto list, impl_->create_list(options));
  list->queue_counters = &queue.impl_->counters;
  return CommandEncoder(std::move(queue), std::move(list));
}

namespace {
/// What Tensor::map would check; for memory that the CPU does not see.
Result<void> check_transfer(std::string_view op, const Tensor& tensor, std::uint64_t bytes) {
  MLXN_CHECK(tensor.allocation()->device()->check_fork(op));
  if (!tensor.is_contiguous()) return make_error(ErrorCode::bad_shape, "{}: the view is not contiguous", op);
  if (tensor.bytes() != bytes) {
    return make_error(ErrorCode::bad_shape, "{}: {} bytes of host memory, the tensor has {}", op, bytes, tensor.bytes());
  }
  return {};
}
bool is_remote(const Tensor& tensor) noexcept { return tensor.allocation() && !tensor.allocation()->cpu_visible; }
}  // namespace

Result<void> Device::upload(const Tensor& to, std::span<const std::byte> from) const {
  if (is_remote(to)) {
    MLXN_CHECK(check_transfer("upload", to, from.size()));
    return to.allocation()->device()->upload(*to.allocation(), to.byte_offset(), from);
  }
  MLXN_TRY(const auto mapping, to.write<std::byte>());
  if (mapping.size() != from.size()) {
    return make_error(ErrorCode::bad_shape, "upload: {} bytes given, the tensor has {}", from.size(), mapping.size());
  }
  if (!from.empty()) std::memcpy(mapping.data(), from.data(), from.size());
  return {};
}

Result<void> Device::download(std::span<std::byte> to, const Tensor& from) const {
  if (is_remote(from)) {
    MLXN_CHECK(check_transfer("download", from, to.size()));
    return from.allocation()->device()->download(to, *from.allocation(), from.byte_offset());
  }
  MLXN_TRY(const auto mapping, from.read<std::byte>());
  if (mapping.size() != to.size()) {
    return make_error(ErrorCode::bad_shape, "download: room for {} bytes, the tensor has {}", to.size(), mapping.size());
  }
  if (!to.empty()) std::memcpy(to.data(), mapping.data(), to.size());
  return {};
}

namespace {
template <class Record>
Result<void> run_now(const Device& device, Record&& record) {
  MLXN_TRY(CommandEncoder encoder, device.encoder());
  MLXN_CHECK(record(encoder));
  return encoder.commit_and_wait();
}
}  // namespace

Result<void> Device::copy(const Tensor& to, const Tensor& from) const {
  return run_now(*this, [&](CommandEncoder& encoder) { return encoder.copy(to, from); });
}

Result<void> Device::fill(const Tensor& to, std::byte value) const {
  return run_now(*this, [&](CommandEncoder& encoder) { return encoder.fill(to, value); });
}

Counters Queue::counters() const noexcept { return impl_ ? impl_->counters.snapshot() : Counters{}; }

Result<void> Queue::wait_idle() const {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::invalid_argument, "wait_idle: empty queue handle");
    MLXN_CHECK(impl_->device().check_fork("wait_idle"));
    MLXN_CHECK(impl_->drain());
    if (auto error = impl_->take_sticky_error()) return *error;
    return {};
  });
}

}  // namespace mlxn
