#include "backends/cuda/device.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "backends/cuda/backend.h"
#include "backends/cuda/command_list.h"
#include "backends/cuda/queue.h"

namespace mlxn::cuda {
namespace {

constexpr int kOldestCapability = 80;  // the portable kernels are compiled for it and all later ones
constexpr std::uint64_t kBaseAlignment = 256;  // of every block that CUDA hands out
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 48;  // beyond any machine's memory, and sums of them stay in 64 bits
constexpr std::size_t kFreeEvents = 64;

/// Devices that the driver shows. not_found says what is missing.
Result<int> device_count() {
  if (!driver_is_installed()) {
    return make_error(ErrorCode::not_found, "cuda: no NVIDIA driver: libcuda.so.1 is not there").with_native_code(cudaErrorInsufficientDriver);
  }
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess && count > 0) return count;
  static_cast<void>(cudaGetLastError());
  int driver = 0, runtime = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  static_cast<void>(cudaGetLastError());
  const auto version = [](int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); };
  if (driver == 0) {
    return make_error(ErrorCode::not_found, "cuda: the NVIDIA driver, libcuda.so.1, does not start").with_native_code(code);
  }
  if (code == cudaErrorInsufficientDriver) {
    return make_error(ErrorCode::not_found, "cuda: the NVIDIA driver knows CUDA {}, this build needs {}", version(driver), version(runtime))
        .with_native_code(code);
  }
  if (code == cudaSuccess || code == cudaErrorNoDevice) {
    return make_error(ErrorCode::not_found, "cuda: the driver shows no GPU (is one plugged in, and CUDA_VISIBLE_DEVICES not empty?)")
        .with_native_code(cudaErrorNoDevice);
  }
  const Error error = call_error("looking for GPUs", code);
  return Error(ErrorCode::not_found, error.message()).with_native_code(code);
}

Result<Capabilities> describe(int ordinal, std::string_view reason, int* compute_capability = nullptr) {
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    if (cudaDeviceGetAttribute(&value, which, ordinal) != cudaSuccess) static_cast<void>(cudaGetLastError());
    return value;
  };
  cudaDeviceProp properties{};
  if (const cudaError_t code = cudaGetDeviceProperties(&properties, ordinal); code != cudaSuccess) {
    return call_error(fmt::format("device {}", ordinal), code);
  }
  const int capability = properties.major * 10 + properties.minor;
  if (compute_capability != nullptr) *compute_capability = capability;
  if (capability < kOldestCapability) {
    return make_error(ErrorCode::unsupported, "cuda: device {}, {}, has compute capability {}.{}, wanted {}.{} or newer", ordinal,
                      properties.name, properties.major, properties.minor, kOldestCapability / 10, kOldestCapability % 10);
  }
  Capabilities c;
  c.backend = "cuda";
  c.id = fmt::format("cuda:{}", ordinal);
  c.name = fmt::format("{} ({} multiprocessors, compute capability {}.{})", properties.name, properties.multiProcessorCount,
                       properties.major, properties.minor);
  c.selection_reason = reason;
  c.unified_memory = false;
  c.total_bytes = properties.totalGlobalMem;
  c.largest_allocation_bytes = properties.totalGlobalMem;
  c.last_level_cache_bytes = static_cast<std::uint64_t>(properties.l2CacheSize);
  c.threads = properties.maxThreadsPerBlock;
  c.compute_units = properties.multiProcessorCount;
  c.group_memory_bytes = static_cast<std::uint32_t>(
      std::max(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), attribute(cudaDevAttrMaxSharedMemoryPerBlock)));
  c.simd_width = static_cast<std::uint32_t>(properties.warpSize);
  c.native_bf16 = true;   // from compute capability 8.0 on
  c.matrix_units = true;  // from 7.0 on
  c.alignment_bytes = kBaseAlignment;
  return c;
}

Result<std::shared_ptr<DeviceImpl>> open_device(int ordinal, const DeviceOptions& options, std::string_view reason) {
  MLXN_TRY(auto device, CudaDevice::open(ordinal, options, reason));
  return std::shared_ptr<DeviceImpl>(std::move(device));
}

Result<std::shared_ptr<DeviceImpl>> open_best_device(const DeviceOptions& options) {
  MLXN_TRY(auto device, CudaDevice::open_best(options));
  return std::shared_ptr<DeviceImpl>(std::move(device));
}

}  // namespace

Backend backend() noexcept { return {"cuda", &open_device, &open_best_device, &CudaDevice::enumerate}; }

// ---- opening ------------------------------------------------------------------------------------------------------------

Result<void> CudaDevice::enumerate(std::vector<Capabilities>& devices) {
  if (!driver_is_installed()) return {};
  const auto count = device_count();
  if (!count) return {};
  for (int ordinal = 0; ordinal < *count; ++ordinal) {
    auto capabilities = describe(ordinal, "");
    if (!capabilities) continue;  // too old, or out of order: open() says why
    // Free bytes are not asked for: that would make a context.
    devices.push_back(*std::move(capabilities));
  }
  return {};
}

Result<std::shared_ptr<CudaDevice>> CudaDevice::open_best(const DeviceOptions& options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CudaDevice>> {
    MLXN_TRY(const int count, device_count());
    struct Candidate {
      int ordinal, capability;
      Capabilities capabilities;
    };
    std::vector<Candidate> candidates;
    std::string refused;  // by what those say that do not serve
    std::optional<Error> first;
    const auto refuse = [&](const Error& error) {
      if (!first) first = error;
      refused.append(refused.empty() ? "" : "; ").append(error.message());
    };
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      int capability = 0;
      auto capabilities = describe(ordinal, "", &capability);
      if (capabilities) {
        candidates.push_back({ordinal, capability, *std::move(capabilities)});
      } else {
        refuse(capabilities.error());
      }
    }
    const auto rank = [](const Candidate& c) {
      return std::tuple(c.capability, c.capabilities.compute_units, c.capabilities.total_bytes);
    };
    std::stable_sort(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) { return rank(a) > rank(b); });
    for (const Candidate& c : candidates) {
      std::string reason = count == 1 ? "a GPU is there" : fmt::format("{}, the best of {} GPUs", c.capabilities.id, count);
      if (!refused.empty()) reason = fmt::format("{}, the best of {} GPUs that works ({})", c.capabilities.id, count, refused);
      auto device = open(c.ordinal, options, reason);
      if (device) return device;
      if (device.error().message() == mlxn::to_string(device.error().code())) return device.error();  // there is no memory for texts
      refuse(device.error());
    }
    return Error(first->code(), refused).with_native_code(first->native_code());
  });
}

Result<std::shared_ptr<CudaDevice>> CudaDevice::open(int ordinal, const DeviceOptions& options, std::string_view reason) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CudaDevice>> {
    MLXN_CHECK(check_options("cuda", options));
    MLXN_TRY(const int count, device_count());
    if (ordinal >= count) {
      return make_error(ErrorCode::not_found, "cuda: device {}, there {} {}: 0 to {}", ordinal, count == 1 ? "is" : "are", count, count - 1);
    }
    int capability = 0;
    MLXN_TRY(Capabilities capabilities, describe(ordinal, reason, &capability));
    // Makes the primary context, and finds out whether it works.
    cudaError_t code = cudaSetDevice(ordinal);
    if (code == cudaSuccess) code = cudaFree(nullptr);
    std::size_t free = 0, total = 0;
    if (code == cudaSuccess) code = cudaMemGetInfo(&free, &total);
    if (is_fault(code)) {
      static_cast<void>(cudaGetLastError());
      return make_error(ErrorCode::device_lost, "cuda: device {} has failed in this process: {} ({}); another process can open it",
                        ordinal, cudaGetErrorString(code), cudaGetErrorName(code))
          .with_native_code(code);
    }
    if (code != cudaSuccess) return call_error(fmt::format("opening device {}", ordinal), code);
    capabilities.free_bytes = free;
    std::shared_ptr<CudaDevice> device(new CudaDevice(ordinal, capability, std::move(capabilities), options), EndAtHome());
    MLXN_CHECK(device->transfer_.open());
    MLXN_TRY(device->default_queue_, device->make_queue(nullptr));
    return device;
  });
}

CudaDevice::CudaDevice(int ordinal, int capability, Capabilities capabilities, const DeviceOptions& device_options)
    : ordinal_(ordinal), capability_(capability), capabilities_(std::move(capabilities)), transfer_(*this) {
  options = device_options;
  free_events_.reserve(kFreeEvents);
}

CudaDevice::~CudaDevice() {
  static_cast<void>(cudaSetDevice(ordinal_));
  default_queue_.reset();
  code_.clear();
  static_cast<void>(drop_unused());
  for (const Events& events : free_events_) {
    static_cast<void>(cudaEventDestroy(events.begin));
    static_cast<void>(cudaEventDestroy(events.end));
  }
  static_cast<void>(cudaGetLastError());
}

// ---- faults -------------------------------------------------------------------------------------------------------------

Result<void> CudaDevice::use() noexcept {
  if (lost()) return lost_error();
  if (const cudaError_t code = cudaSetDevice(ordinal_); code != cudaSuccess) return failed("using the device", code);
  return {};
}

Error CudaDevice::failed(std::string_view what, cudaError_t code) noexcept {
  if (!is_fault(code)) return call_error(what, code);
  lose(code);
  return take_fault();
}

void CudaDevice::lose(cudaError_t code, std::string_view culprit, const CudaQueue* its_queue) noexcept {
  static_cast<void>(cudaGetLastError());
  if (lost()) return;
  const std::string unfinished = unfinished_work(its_queue);
  const Error fault = make_error(ErrorCode::device, "cuda: {}{}{} ({}){}{}", culprit, culprit.empty() ? "" : ": ",
                                 cudaGetErrorString(code), cudaGetErrorName(code),
                                 unfinished.empty() ? "" : culprit.empty() ? "; unfinished work: " : "; unfinished on other queues: ",
                                 unfinished)
                          .with_native_code(code);
  const std::lock_guard lock(fault_mutex_);
  if (fault_) return;
  fault_ = fault;
  lost_.store(true, std::memory_order_release);
}

Error CudaDevice::take_fault() noexcept {
  {
    const std::lock_guard lock(fault_mutex_);
    if (fault_ && !fault_taken_) {
      fault_taken_ = true;
      return *fault_;
    }
  }
  return lost_error();
}

std::string CudaDevice::unfinished_work(const CudaQueue* except) noexcept {
  try {
    constexpr std::size_t kMostNames = 12;
    std::vector<std::string> names;
    static_cast<void>(for_queues([&](CudaQueue& queue) -> Result<void> {
      if (&queue != except) queue.add_unfinished(names);
      return {};
    }));
    if (names.size() > kMostNames) {
      names.resize(kMostNames);
      names.emplace_back("...");
    }
    return fmt::format("{}", fmt::join(names, ", "));
  } catch (...) {  // the text goes without them
    return {};
  }
}

Error CudaDevice::lost_error() const noexcept {
  const std::lock_guard lock(fault_mutex_);
  if (!fault_) return Error(ErrorCode::internal);
  return make_error(ErrorCode::device_lost, "cuda: device {} has failed, another process can open it; its first fault was: {}",
                    ordinal_, fault_->message())
      .with_native_code(fault_->native_code());
}

// ---- memory -------------------------------------------------------------------------------------------------------------

std::uint64_t CudaDevice::free_bytes() const noexcept {
  std::size_t free = 0, total = 0;
  if (lost() || cudaSetDevice(ordinal_) != cudaSuccess || cudaMemGetInfo(&free, &total) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  const std::uint64_t limit = options.memory_limit_bytes, used = counters.bytes_in_use.load(std::memory_order_relaxed);
  return limit == 0 ? free : std::min<std::uint64_t>(free, limit > used ? limit - used : 0);
}

cudaError_t CudaDevice::try_take(void*& data, std::uint64_t bytes, Place place) noexcept {
  const std::uint64_t limit = options.memory_limit_bytes;
  const std::uint64_t before = counters.bytes_in_use.fetch_add(bytes, std::memory_order_relaxed);
  const bool fits = limit == 0 || (before <= limit && bytes <= limit - before);
  cudaError_t code = cudaErrorMemoryAllocation;
  if (fits) code = place == Place::device ? cudaMalloc(&data, bytes) : cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped);
  if (code != cudaSuccess) {
    if (fits) static_cast<void>(cudaGetLastError());
    counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
    return code;
  }
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t peak = counters.peak_bytes_in_use.load(std::memory_order_relaxed);
  while (peak < before + bytes &&
         !counters.peak_bytes_in_use.compare_exchange_weak(peak, before + bytes, std::memory_order_relaxed)) {
  }
  return cudaSuccess;
}

Result<void*> CudaDevice::take(std::uint64_t bytes, Place place) {
  MLXN_CHECK(use());
  const std::string_view kind = place == Place::device ? "" : " of pinned memory";
  if (bytes > kMostBytes) {
    return make_error(ErrorCode::out_of_memory, "cuda: {} bytes{} wanted, {} are free", bytes, kind, free_bytes());
  }
  void* data = nullptr;
  cudaError_t code = try_take(data, bytes, place);
  if (code == cudaErrorMemoryAllocation && drop_unused()) code = try_take(data, bytes, place);
  if (code == cudaSuccess) return data;
  if (code != cudaErrorMemoryAllocation) return failed(fmt::format("allocating {} bytes{}", bytes, kind), code);
  if (options.memory_limit_bytes != 0) {
    return make_error(ErrorCode::out_of_memory, "cuda: {} bytes{} wanted, {} of the limit of {} bytes are in use, {} are free", bytes, kind,
                      counters.bytes_in_use.load(std::memory_order_relaxed), options.memory_limit_bytes, free_bytes());
  }
  if (place == Place::pinned) return make_error(ErrorCode::out_of_memory, "cuda: the system refused {} bytes{}", bytes, kind);
  return make_error(ErrorCode::out_of_memory, "cuda: {} bytes wanted, {} of {} are free", bytes, free_bytes(), capabilities_.total_bytes);
}

void CudaDevice::give_back(void* data, std::uint64_t bytes, Place place) noexcept {
  static_cast<void>(cudaSetDevice(ordinal_));
  static_cast<void>(place == Place::device ? cudaFree(data) : cudaFreeHost(data));
  static_cast<void>(cudaGetLastError());  // of a lost device, or of a process that is ending
  counters.bytes_in_use.fetch_sub(bytes, std::memory_order_relaxed);
}

Result<std::shared_ptr<Allocation>> CudaDevice::allocate(std::uint64_t bytes, const AllocateOptions& allocate_options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<Allocation>> {
    const bool pinned = allocate_options.kind == MemoryKind::pinned || allocate_options.kind == MemoryKind::shared;
    const Place place = pinned ? Place::pinned : Place::device;
    // A base that is aligned to more is looked for in a larger block.
    const std::uint64_t alignment = allocate_options.alignment_bytes;
    if (bytes > kMostBytes) return make_error(ErrorCode::out_of_memory, "cuda: {} bytes wanted, {} are free", bytes, free_bytes());
    const std::uint64_t taken = alignment > kBaseAlignment ? bytes + alignment : bytes;
    MLXN_TRY(void* const base, take(taken, place));
    const auto address = reinterpret_cast<std::uintptr_t>(base);
    auto* const data = static_cast<std::byte*>(base) + ((address + alignment - 1) / alignment * alignment - address);
    std::shared_ptr<Allocation> allocation;
    try {
      auto self = std::static_pointer_cast<CudaDevice>(shared_from_this());
      allocation = std::make_shared<Allocation>(self, data, bytes, nullptr);
      // The allocation still holds the device while this runs.
      allocation->set_release([device = self.get(), base, taken, place] { device->give_back(base, taken, place); });
    } catch (...) {
      give_back(base, taken, place);
      throw;
    }
    allocation->cpu_visible = pinned;
    if (!allocate_options.zero) return allocation;
    if (pinned) {
      std::memset(data, 0, bytes);
    } else {
      MLXN_CHECK(transfer_.zero(data, bytes));
    }
    return allocation;
  });
}

Result<std::shared_ptr<Allocation>> CudaDevice::take_cached(std::uint64_t bytes, Place place, ScratchCache& cache, bool zero) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<Allocation>> {
    ScratchCache::Block block = cache.take(bytes).value_or(ScratchCache::Block{});
    if (block.data == nullptr) {
      block.bytes = (std::clamp<std::uint64_t>(bytes, 1, kMostBytes + 1) + kBaseAlignment - 1) / kBaseAlignment * kBaseAlignment;
      MLXN_TRY(block.data, take(block.bytes, place));
      if (zero) {
        if (auto done = transfer_.zero(static_cast<std::byte*>(block.data), block.bytes); !done) {
          give_back(block.data, block.bytes, place);
          return done.error();
        }
      }
    }
    try {
      auto self = std::static_pointer_cast<CudaDevice>(shared_from_this());
      auto scratch = std::make_shared<Allocation>(self, static_cast<std::byte*>(block.data), block.bytes, nullptr);
      scratch->set_release([device = self.get(), block, place, kept = &cache] {
        if (!kept->keep(block)) device->give_back(block.data, block.bytes, place);
      });
      scratch->scratch = true;
      scratch->cpu_visible = place == Place::pinned;
      return scratch;
    } catch (...) {
      give_back(block.data, block.bytes, place);
      throw;
    }
  });
}

Result<std::shared_ptr<Allocation>> CudaDevice::allocate_scratch(std::uint64_t bytes) {
  return take_cached(bytes, Place::device, free_scratch_);
}

Result<std::shared_ptr<Allocation>> CudaDevice::allocate_staging(std::uint64_t bytes) {
  return take_cached(bytes, Place::pinned, free_staging_);
}

Result<std::shared_ptr<Allocation>> CudaDevice::allocate_counters(std::uint64_t bytes) {
  return take_cached(bytes, Place::device, free_counters_, true);
}

bool CudaDevice::drop_unused() noexcept {
  bool any = false;
  static_cast<void>(mlxn::detail::guarded([&]() -> Result<void> {
    return for_queues([&](CudaQueue& queue) -> Result<void> {
      any = queue.collect() || any;
      return {};
    });
  }));
  for (ScratchCache* cache : {&free_scratch_, &free_counters_}) {
    while (const auto block = cache->pop()) {
      give_back(block->data, block->bytes, Place::device);
      any = true;
    }
  }
  while (const auto block = free_staging_.pop()) {
    give_back(block->data, block->bytes, Place::pinned);
    any = true;
  }
  return any;
}

Result<void> CudaDevice::upload(const Allocation& to, std::uint64_t offset, std::span<const std::byte> from) {
  return transfer_.upload(to.data() + offset, from);
}

Result<void> CudaDevice::download(std::span<std::byte> to, const Allocation& from, std::uint64_t offset) {
  return transfer_.download(to, from.data() + offset);
}

Result<bool> CudaDevice::check_import(const void* data, std::uint64_t bytes) {
  MLXN_CHECK(use());
  bool cpu_visible = true;
  // Both ends, since the GPU may see a part of what the caller means.
  for (const std::byte* end : {static_cast<const std::byte*>(data), static_cast<const std::byte*>(data) + (bytes - 1)}) {
    cudaPointerAttributes attributes{};
    if (const cudaError_t code = cudaPointerGetAttributes(&attributes, end); code != cudaSuccess) return failed("import", code);
    switch (attributes.type) {
      case cudaMemoryTypeDevice:
        if (attributes.device != ordinal_) {
          return make_error(ErrorCode::wrong_device, "import: the memory is of cuda:{}, the device is cuda:{}", attributes.device, ordinal_);
        }
        cpu_visible = false;
        break;
      case cudaMemoryTypeHost:
        if (attributes.devicePointer != end) {
          return make_error(ErrorCode::invalid_argument, "import: the GPU sees this memory of the host at another address");
        }
        break;
      case cudaMemoryTypeManaged: break;
      case cudaMemoryTypeUnregistered:
      default:
        return make_error(ErrorCode::invalid_argument,
                          "import: {} bytes of the host's memory, the GPU sees its own and pinned memory only", bytes);
    }
  }
  return cpu_visible;
}

// ---- queues -------------------------------------------------------------------------------------------------------------

Result<std::shared_ptr<CudaQueue>> CudaDevice::add_queue(cudaStream_t stream, bool owned, std::shared_ptr<CudaDevice> keep) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CudaQueue>> {
    std::shared_ptr<CudaQueue> queue(new CudaQueue(*this, stream, std::move(keep)), EndAtHome());
    const std::lock_guard lock(mutex_);
    const auto free = std::find_if(queues_.begin(), queues_.end(), [](const auto& q) { return q.expired(); });
    if (free != queues_.end()) {
      *free = queue;
    } else {
      queues_.push_back(queue);
    }
    if (owned) queue->own_stream();  // whoever made it ends it where this fails
    return queue;
  });
}

Result<std::shared_ptr<CudaQueue>> CudaDevice::make_queue(std::shared_ptr<CudaDevice> keep) {
  MLXN_CHECK(use());
  cudaStream_t stream = nullptr;
  if (const cudaError_t code = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); code != cudaSuccess) return failed("a queue's stream", code);
  auto queue = add_queue(stream, true, std::move(keep));
  if (!queue) static_cast<void>(cudaStreamDestroy(stream));
  return queue;
}

Result<std::shared_ptr<QueueImpl>> CudaDevice::create_queue() {
  MLXN_TRY(auto queue, make_queue(std::static_pointer_cast<CudaDevice>(shared_from_this())));
  return std::shared_ptr<QueueImpl>(std::move(queue));
}

Result<std::shared_ptr<QueueImpl>> CudaDevice::adopt_stream(cudaStream_t stream) {
  MLXN_CHECK(use());
  if (stream != nullptr) {
    int ordinal = -1;
    if (const cudaError_t code = cudaStreamGetDevice(stream, &ordinal); code != cudaSuccess) {
      if (is_fault(code)) return failed("the caller's stream", code);
      return Error(ErrorCode::invalid_argument, call_error("cuda_queue: no stream", code).message());
    }
    if (ordinal != ordinal_) {
      return make_error(ErrorCode::wrong_device, "cuda_queue: the stream is of cuda:{}, the device is cuda:{}", ordinal, ordinal_);
    }
  }
  MLXN_TRY(auto queue, add_queue(stream, false, std::static_pointer_cast<CudaDevice>(shared_from_this())));
  return std::shared_ptr<QueueImpl>(std::move(queue));
}

template <class F>
Result<void> CudaDevice::for_queues(F&& f) {
  // One queue at a time: no list of them to allocate, and a queue that nobody holds any more has no work.
  std::unique_lock lock(mutex_);
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    std::shared_ptr<CudaQueue> queue = queues_[i].lock();
    if (!queue) continue;
    lock.unlock();
    MLXN_CHECK(f(*queue));
    queue.reset();  // perhaps the last handle, whose end takes the lock
    lock.lock();
  }
  return {};
}

Result<void> CudaDevice::wait_unused(const Allocation& allocation) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    return for_queues([&](CudaQueue& queue) { return queue.wait_unused(allocation); });
  });
}

Result<void> CudaDevice::order_behind_queues(cudaStream_t stream, cudaEvent_t event) {
  return for_queues([&](CudaQueue& queue) { return queue.order_before(stream, event); });
}

Result<std::shared_ptr<CommandList>> CudaDevice::create_list(const EncoderOptions& encoder_options) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<CommandList>> {
    if (lost()) return lost_error();
    return std::make_shared<CudaCommandList>(std::static_pointer_cast<CudaDevice>(shared_from_this()), encoder_options);
  });
}

Result<Events> CudaDevice::take_events() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_events_.empty()) {
      const Events events = free_events_.back();
      free_events_.pop_back();
      return events;
    }
  }
  Events events;
  // Blocking: a thread that waits for long sleeps.
  cudaError_t code = cudaEventCreateWithFlags(&events.begin, cudaEventBlockingSync);
  if (code != cudaSuccess) return failed("an event", code);
  code = cudaEventCreateWithFlags(&events.end, cudaEventBlockingSync);
  if (code != cudaSuccess) {
    static_cast<void>(cudaEventDestroy(events.begin));
    return failed("an event", code);
  }
  return events;
}

void CudaDevice::give_back_events(Events events) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (free_events_.size() < kFreeEvents) {
      free_events_.push_back(events);
      return;
    }
  }
  static_cast<void>(cudaEventDestroy(events.begin));
  static_cast<void>(cudaEventDestroy(events.end));
  static_cast<void>(cudaGetLastError());
}

}  // namespace mlxn::cuda
