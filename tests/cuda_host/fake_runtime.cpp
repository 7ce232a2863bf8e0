#include "tests/cuda_host/fake_runtime.h"

#include <cuda.h>

#include "backends/cuda/runtime.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

// ---- what the handles point to ------------------------------------------------------------------------------------------

namespace fake {
namespace {
/// How often there was a reset(): what a broken device gives back only after the next one does not count there.
std::atomic<std::uint64_t> machines{0};
struct Object {
  std::uint64_t machine = machines.load();
};
}  // namespace
}  // namespace fake

struct CUstream_st : fake::Object {
  int device = 0;
  std::deque<std::function<void()>> work;
  bool running = false, stop = false;
  std::thread thread;
};
struct CUevent_st : fake::Object {
  /// Of the last record; who waits for one keeps it, whatever is recorded later.
  std::shared_ptr<bool> ended = std::make_shared<bool>(true);
  std::chrono::steady_clock::time_point when{};
};
/// What a kernel's launch has besides its sizes.
struct Attributes {
  dim3 cluster;
  bool starts_early = false;
};
struct CUgraphNode_st {
  std::function<void()> work;
  std::shared_ptr<Attributes> attributes;  // of a kernel
  bool has_dependency = false;
};
struct CUgraph_st : fake::Object {
  std::deque<CUgraphNode_st> nodes;
};
struct CUgraphExec_st : fake::Object {
  std::deque<CUgraphNode_st> nodes;
};

namespace fake {
namespace {

struct Kernel {
  std::vector<std::size_t> param_bytes;
  std::function<void(const Launch&)> run;
};
struct Block {
  std::uint64_t bytes;
  cudaMemoryType type;
  int device;
};
struct Machine {
  std::mutex mutex;
  std::condition_variable changed;
  Options options;
  int holds = 0;
  cudaError_t fault = cudaSuccess, next_fault = cudaSuccess;
  std::map<std::string, cudaError_t, std::less<>> failing;
  std::map<std::string, int, std::less<>> calls;
  std::map<std::uintptr_t, Block> blocks;
  std::map<std::string, Kernel, std::less<>> kernels;
  std::map<const void*, std::string> functions;  // the host's handle of a kernel
  std::map<const void*, int> shared_allowed;
  std::vector<std::unique_ptr<std::string>> names;
  std::set<int> contexts;
  std::uint64_t device_bytes = 0;
  int objects = 0;
};
Machine& machine() {
  static Machine* const all = new Machine;  // streams may outlive main()
  return *all;
}
thread_local cudaError_t last = cudaSuccess;
thread_local int current = 0;

/// Every function of the runtime begins with it: counts, and fails where a test wants it or the device is broken.
cudaError_t enter(const char* function, bool survives_faults = false) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  ++m.calls[function];
  if (const auto it = m.failing.find(function); it != m.failing.end()) {
    const cudaError_t code = it->second;
    m.failing.erase(it);
    return last = code;
  }
  if (m.fault != cudaSuccess && !survives_faults) return last = m.fault;
  return cudaSuccess;
}
#define ENTER                                                                       \
  if (const cudaError_t code = fake::enter(__func__); code != cudaSuccess) return code
#define ENTER_ALWAYS                                                                      \
  if (const cudaError_t code = fake::enter(__func__, true); code != cudaSuccess) return code

cudaError_t fail(cudaError_t code) { return last = code; }

void run_stream(CUstream_st* stream) {
  Machine& m = machine();
  std::unique_lock lock(m.mutex);
  for (;;) {
    m.changed.wait(lock, [&] { return stream->stop || (!stream->work.empty() && m.holds == 0); });
    if (stream->stop && stream->work.empty()) return;
    if (m.holds != 0) continue;
    auto work = std::move(stream->work.front());
    stream->work.pop_front();
    stream->running = true;
    if (m.next_fault != cudaSuccess) {
      m.fault = m.next_fault;
      m.next_fault = cudaSuccess;
    }
    const bool runs = m.fault == cudaSuccess;
    lock.unlock();
    if (runs) work();
    lock.lock();
    stream->running = false;
    m.changed.notify_all();
  }
}

CUstream_st* stream_of(cudaStream_t stream) {
  if (stream != nullptr) return stream;
  static CUstream_st* const legacy = [] {
    auto* made = new CUstream_st;
    made->thread = std::thread([made] { run_stream(made); });
    made->thread.detach();
    return made;
  }();
  return legacy;
}

void push(cudaStream_t stream, std::function<void()> work) {
  Machine& m = machine();
  CUstream_st* const to = stream_of(stream);
  const std::lock_guard lock(m.mutex);
  to->work.push_back(std::move(work));
  m.changed.notify_all();
}

void make(int count) {
  const std::lock_guard lock(machine().mutex);
  machine().objects += count;
}
void give_back(const Object& object) {
  if (object.machine == machines.load()) make(-1);
}

std::uint64_t device_memory_in_use() { return machine().device_bytes; }

cudaError_t allocate(void** data, std::uint64_t bytes, cudaMemoryType type) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  if (type == cudaMemoryTypeDevice && bytes > m.options.memory_bytes - device_memory_in_use()) return fail(cudaErrorMemoryAllocation);
  void* const block = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (block == nullptr) return fail(cudaErrorMemoryAllocation);
  std::memset(block, 0xa5, bytes);
  m.blocks[reinterpret_cast<std::uintptr_t>(block)] = {bytes, type, current};
  if (type == cudaMemoryTypeDevice) m.device_bytes += bytes;
  ++m.objects;
  *data = block;
  return cudaSuccess;
}

cudaError_t release(void* data) {
  if (data == nullptr) return cudaSuccess;
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  const auto it = m.blocks.find(reinterpret_cast<std::uintptr_t>(data));
  if (it == m.blocks.end()) return fail(cudaErrorInvalidValue);
  if (it->second.type == cudaMemoryTypeDevice) m.device_bytes -= it->second.bytes;
  m.blocks.erase(it);
  --m.objects;
  std::free(data);
  return cudaSuccess;
}

/// The launch with its parameters copied, as the runtime does at once.
std::function<void()> bind(const void* function, dim3 grid, dim3 threads, void** args, std::uint64_t shared,
                           std::shared_ptr<Attributes> attributes = std::make_shared<Attributes>()) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  const auto name = m.functions.find(function);
  if (name == m.functions.end()) return nullptr;
  const auto kernel = m.kernels.find(name->second);
  if (kernel == m.kernels.end()) return nullptr;
  auto params = std::make_shared<Params>();
  for (std::size_t i = 0; i < kernel->second.param_bytes.size(); ++i) {
    const auto* const from = static_cast<const std::byte*>(args[i]);
    params->emplace_back(from, from + kernel->second.param_bytes[i]);
  }
  return [run = kernel->second.run, params, grid, threads, shared, attributes] {
    run(Launch{grid, threads, shared, *params, attributes->cluster, attributes->starts_early});
  };
}

void copy_rows(const cudaMemcpy3DParms& p) {
  for (std::size_t row = 0; row < p.extent.height; ++row) {
    std::memcpy(static_cast<std::byte*>(p.dstPtr.ptr) + row * p.dstPtr.pitch, static_cast<const std::byte*>(p.srcPtr.ptr) + row * p.srcPtr.pitch,
                p.extent.width);
  }
}

/// A chain is all that is known here.
cudaError_t add_node(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* from, std::size_t dependencies,
                     std::function<void()> work, std::shared_ptr<Attributes> attributes = nullptr) {
  if (dependencies > 1 || (dependencies == 1 && (graph->nodes.empty() || *from != &graph->nodes.back()))) return fail(cudaErrorInvalidValue);
  graph->nodes.push_back({std::move(work), std::move(attributes), dependencies == 1});
  *node = &graph->nodes.back();
  return cudaSuccess;
}

/// More shared memory than 48 KiB has to be asked for.
bool is_too_much_shared(const void* function, std::uint64_t bytes) {
  const std::lock_guard lock(machine().mutex);
  const auto allowed = machine().shared_allowed.find(function);
  return bytes > (48 << 10) && (allowed == machine().shared_allowed.end() || bytes > static_cast<std::uint64_t>(allowed->second));
}

}  // namespace

void reset(const Options& options) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  m.options = options;
  ++machines;
  m.fault = m.next_fault = last = cudaSuccess;
  m.failing.clear();
  m.calls.clear();
  m.blocks.clear();  // what a broken device did not take back
  m.device_bytes = 0;
  m.objects = 0;
  m.contexts.clear();
  // What functions were allowed stays: the process has them, and the library asks once.
}

Hold::Hold() {
  const std::lock_guard lock(machine().mutex);
  ++machine().holds;
}
Hold::~Hold() { release(); }
void Hold::release() {
  const std::lock_guard lock(machine().mutex);
  if (held_) --machine().holds;
  held_ = false;
  machine().changed.notify_all();
}

void define_kernel(std::string_view name, std::vector<std::size_t> param_bytes, std::function<void(const Launch&)> run) {
  const std::lock_guard lock(machine().mutex);
  machine().kernels[std::string(name)] = {std::move(param_bytes), std::move(run)};
}
const void* function_of(std::string_view name) {
  const std::lock_guard lock(machine().mutex);
  machine().names.push_back(std::make_unique<std::string>(name));
  machine().functions[machine().names.back().get()] = std::string(name);
  return machine().names.back().get();
}
void break_next_work(cudaError_t code) {
  const std::lock_guard lock(machine().mutex);
  machine().next_fault = code;
}
bool is_broken() {
  const std::lock_guard lock(machine().mutex);
  return machine().fault != cudaSuccess;
}
void fail_next_call(std::string_view function, cudaError_t code) {
  const std::lock_guard lock(machine().mutex);
  machine().failing[std::string(function)] = code;
}
int calls(std::string_view function) {
  const std::lock_guard lock(machine().mutex);
  const auto it = machine().calls.find(function);
  return it == machine().calls.end() ? 0 : it->second;
}
int live_objects() {
  const std::lock_guard lock(machine().mutex);
  return machine().objects;
}
int contexts() {
  const std::lock_guard lock(machine().mutex);
  return static_cast<int>(machine().contexts.size());
}
std::uint64_t bytes_in_use() {
  const std::lock_guard lock(machine().mutex);
  return machine().device_bytes;
}
cudaError_t last_error() { return last; }

}  // namespace fake

// ---- the runtime's functions, those that the backend uses ---------------------------------------------------------------

using fake::fail;
using fake::machine;

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t code = fake::last;
  fake::last = cudaSuccess;
  return code;
}
const char* cudaGetErrorString(cudaError_t code) { return code == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "an error of the stand-in"; }
const char* cudaGetErrorName(cudaError_t code) {
  switch (code) {
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorDevicesUnavailable: return "cudaErrorDevicesUnavailable";
    default: return "cudaError";
  }
}
cudaError_t cudaGetDeviceCount(int* count) {
  ENTER_ALWAYS;
  *count = 0;
  const fake::Options& options = machine().options;
  if (options.driver_version < 13000) return fail(cudaErrorInsufficientDriver);
  if (options.devices == 0) return fail(cudaErrorNoDevice);
  *count = options.devices;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().options.driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  ENTER_ALWAYS;
  const fake::Options& options = machine().options;
  const auto of_device = [&](const std::vector<int>& values, int other) {
    return static_cast<std::size_t>(device) < values.size() ? values[static_cast<std::size_t>(device)] : other;
  };
  const int capability = of_device(options.capabilities, options.capability);
  *properties = {};
  std::strcpy(properties->name, "Stand-in");
  properties->major = capability / 10;
  properties->minor = capability % 10;
  properties->multiProcessorCount = of_device(options.multiprocessors, 132);
  properties->maxThreadsPerBlock = 1024;
  properties->warpSize = 32;
  properties->l2CacheSize = 60 << 20;
  properties->totalGlobalMem = machine().options.memory_bytes;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  ENTER_ALWAYS;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
    case cudaDevAttrComputeCapabilityMajor: *value = machine().options.capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = machine().options.capability % 10; break;
    default: return fail(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  ENTER_ALWAYS;
  if (device >= machine().options.devices) return fail(cudaErrorInvalidDevice);
  if (device == machine().options.unavailable) return fail(cudaErrorDevicesUnavailable);
  const std::lock_guard lock(machine().mutex);
  machine().contexts.insert(device);  // it makes one since CUDA 12
  fake::current = device;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  ENTER;
  *total = machine().options.memory_bytes;
  *free = *total - fake::bytes_in_use();
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, size_t bytes) {
  ENTER;
  return fake::allocate(data, bytes, cudaMemoryTypeDevice);
}
cudaError_t cudaFree(void* data) {
  ENTER;
  return fake::release(data);
}
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  ENTER;
  return fake::allocate(data, bytes, cudaMemoryTypeHost);
}
cudaError_t cudaFreeHost(void* data) {
  ENTER;
  return fake::release(data);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  ENTER;
  *attributes = {};
  attributes->type = cudaMemoryTypeUnregistered;
  const std::lock_guard lock(machine().mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  auto it = machine().blocks.upper_bound(address);
  if (it == machine().blocks.begin()) return cudaSuccess;
  --it;
  if (address - it->first >= it->second.bytes) return cudaSuccess;
  attributes->type = it->second.type;
  attributes->device = it->second.device;
  attributes->devicePointer = const_cast<void*>(data);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  ENTER;
  auto* const made = new CUstream_st;
  made->device = fake::current;
  made->thread = std::thread([made] { fake::run_stream(made); });
  fake::make(1);
  *stream = made;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  ENTER_ALWAYS;
  {
    const std::lock_guard lock(machine().mutex);
    stream->stop = true;
    machine().changed.notify_all();
  }
  stream->thread.join();
  fake::give_back(*stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ENTER;
  std::unique_lock lock(machine().mutex);
  CUstream_st* const s = fake::stream_of(stream);
  machine().changed.wait(lock, [&] { return s->work.empty() && !s->running; });
  return machine().fault == cudaSuccess ? cudaSuccess : fail(machine().fault);
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  ENTER;
  *device = stream->device;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  ENTER;
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  ENTER;
  std::shared_ptr<bool> ended;
  {
    const std::lock_guard lock(machine().mutex);
    ended = event->ended;
  }
  fake::push(stream, [ended] {
    std::unique_lock lock(machine().mutex);
    machine().changed.wait(lock, [&] { return *ended || machine().fault != cudaSuccess; });
  });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  ENTER;
  *event = new CUevent_st;
  fake::make(1);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  ENTER_ALWAYS;
  fake::give_back(*event);
  if (machine().fault == cudaSuccess) delete event;  // a broken stream may still hold it
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  ENTER;
  auto ended = std::make_shared<bool>(false);
  {
    const std::lock_guard lock(machine().mutex);
    event->ended = ended;
  }
  fake::push(stream, [event, ended] {
    const std::lock_guard lock(machine().mutex);
    *ended = true;
    event->when = std::chrono::steady_clock::now();
  });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  ENTER;
  const std::lock_guard lock(machine().mutex);
  return *event->ended ? cudaSuccess : fail(cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ENTER;
  std::unique_lock lock(machine().mutex);
  const std::shared_ptr<bool> ended = event->ended;
  machine().changed.wait(lock, [&] { return *ended || machine().fault != cudaSuccess; });
  return machine().fault == cudaSuccess ? cudaSuccess : fail(machine().fault);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  ENTER;
  const std::lock_guard lock(machine().mutex);
  *milliseconds = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  ENTER;
  fake::push(stream, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind,
                              cudaStream_t stream) {
  ENTER;
  if (width > to_pitch || width > from_pitch) return fail(cudaErrorInvalidPitchValue);
  cudaMemcpy3DParms p{};
  p.srcPtr = {const_cast<void*>(from), from_pitch, width, height};
  p.dstPtr = {to, to_pitch, width, height};
  p.extent = {width, height, 1};
  fake::push(stream, [p] { fake::copy_rows(p); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  ENTER;
  fake::push(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 threads, void** args, size_t shared, cudaStream_t stream) {
  ENTER;
  if (fake::is_too_much_shared(function, shared)) return fail(cudaErrorInvalidValue);
  auto work = fake::bind(function, grid, threads, args, shared);
  if (!work) return fail(cudaErrorInvalidDeviceFunction);
  fake::push(stream, std::move(work));
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** args) {
  ENTER;
  auto attributes = std::make_shared<Attributes>();
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& a = config->attrs[i];
    if (a.id == cudaLaunchAttributeClusterDimension) {
      attributes->cluster = dim3(a.val.clusterDim.x, a.val.clusterDim.y, a.val.clusterDim.z);
    } else if (a.id == cudaLaunchAttributeProgrammaticStreamSerialization) {
      attributes->starts_early = a.val.programmaticStreamSerializationAllowed != 0;
    } else {
      return fail(cudaErrorInvalidValue);
    }
  }
  if (fake::is_too_much_shared(function, config->dynamicSmemBytes)) return fail(cudaErrorInvalidValue);
  auto work = fake::bind(function, config->gridDim, config->blockDim, args, config->dynamicSmemBytes, std::move(attributes));
  if (!work) return fail(cudaErrorInvalidDeviceFunction);
  fake::push(config->stream, std::move(work));
  return cudaSuccess;
}

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  ENTER;
  *graph = new CUgraph_st;
  fake::make(1);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  ENTER_ALWAYS;
  fake::give_back(*graph);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  ENTER;
  for (std::size_t i = 1; i < graph->nodes.size(); ++i) {
    if (!graph->nodes[i].has_dependency) return fail(cudaErrorInvalidValue);
  }
  *exec = new CUgraphExec_st{{}, graph->nodes};
  fake::make(1);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  ENTER_ALWAYS;
  fake::give_back(*exec);
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ENTER;
  fake::push(stream, [nodes = exec->nodes] {
    for (const auto& node : nodes) node.work();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* from_nodes, size_t dependencies,
                                   const cudaKernelNodeParams* p) {
  ENTER;
  if (fake::is_too_much_shared(p->func, p->sharedMemBytes)) return fail(cudaErrorInvalidValue);
  auto attributes = std::make_shared<Attributes>();
  auto work = fake::bind(p->func, p->gridDim, p->blockDim, p->kernelParams, p->sharedMemBytes, attributes);
  if (!work) return fail(cudaErrorInvalidDeviceFunction);
  return fake::add_node(node, graph, from_nodes, dependencies, std::move(work), std::move(attributes));
}
cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to, const cudaGraphEdgeData* edge,
                                     size_t count) {
  ENTER;
  const std::size_t nodes = graph->nodes.size();
  const bool is_chain = count == 1 && nodes >= 2 && *to == &graph->nodes.back() && *from == &graph->nodes[nodes - 2] && !(*to)->has_dependency;
  // Only a kernel lets another one start early.
  if (!is_chain || !(*from)->attributes || !(*to)->attributes) return fail(cudaErrorInvalidValue);
  if (edge->type != cudaGraphDependencyTypeProgrammatic || edge->from_port != cudaGraphKernelNodePortProgrammatic) {
    return fail(cudaErrorInvalidValue);
  }
  (*to)->has_dependency = (*to)->attributes->starts_early = true;
  return cudaSuccess;
}
cudaError_t cudaGraphKernelNodeSetAttribute(cudaGraphNode_t node, cudaLaunchAttributeID id, const cudaLaunchAttributeValue* value) {
  ENTER;
  if (!node->attributes || id != cudaLaunchAttributeClusterDimension) return fail(cudaErrorInvalidValue);
  node->attributes->cluster = dim3(value->clusterDim.x, value->clusterDim.y, value->clusterDim.z);
  return cudaSuccess;
}
cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* from_nodes, size_t dependencies,
                                   const cudaMemcpy3DParms* params) {
  ENTER;
  return fake::add_node(node, graph, from_nodes, dependencies, [p = *params] { fake::copy_rows(p); });
}
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* from_nodes, size_t dependencies, void* to,
                                     const void* from, size_t bytes, cudaMemcpyKind) {
  ENTER;
  return fake::add_node(node, graph, from_nodes, dependencies, [=] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* from_nodes, size_t dependencies,
                                   const cudaMemsetParams* params) {
  ENTER;
  return fake::add_node(node, graph, from_nodes, dependencies, [p = *params] { std::memset(p.dst, static_cast<int>(p.value), p.width); });
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void*, cudaJitOption*, void**, unsigned, cudaLibraryOption*, void**, unsigned) {
  ENTER;
  fake::make(1);
  *library = reinterpret_cast<cudaLibrary_t>(&machine());
  return cudaSuccess;
}
cudaError_t cudaLibraryUnload(cudaLibrary_t) {
  ENTER_ALWAYS;
  fake::make(-1);
  return cudaSuccess;
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t, const char* name) {
  ENTER;
  const std::lock_guard lock(machine().mutex);
  if (machine().kernels.count(name) == 0) return fail(cudaErrorSymbolNotFound);
  machine().names.push_back(std::make_unique<std::string>(name));
  machine().functions[machine().names.back().get()] = name;
  *kernel = reinterpret_cast<cudaKernel_t>(machine().names.back().get());
  return cudaSuccess;
}
cudaError_t cudaFuncGetParamInfo(const void* function, size_t index, size_t* offset, size_t* size) {
  ENTER;
  const std::lock_guard lock(machine().mutex);
  const auto& sizes = machine().kernels.at(machine().functions.at(function)).param_bytes;
  if (index >= sizes.size()) return fail(cudaErrorInvalidValue);
  *offset = 0;
  *size = sizes[index];
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  ENTER;
  *attributes = {};
  attributes->maxThreadsPerBlock = 512;
  attributes->numRegs = 128;
  return cudaSuccess;
}
static CUresult fake_encode_tiled(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void* base, const cuuint64_t* sizes,
                                  const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t*, CUtensorMapInterleave,
                                  CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  fake::TensorMap made;
  if (reinterpret_cast<std::uintptr_t>(base) % 16 != 0 || (rank != 2 && rank != 3)) return CUDA_ERROR_INVALID_VALUE;
  for (cuuint32_t i = 0; i < rank; ++i) {
    if (sizes[i] == 0 || box[i] == 0 || box[i] > 256 || (i > 0 && strides[i - 1] % 16 != 0)) return CUDA_ERROR_INVALID_VALUE;
    made.sizes[i] = sizes[i];
    made.box[i] = box[i];
  }
  made.base = static_cast<const std::byte*>(base);
  made.row_bytes = strides[0];
  if (rank == 3) made.plane_bytes = strides[1];
  made.swizzle128 = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  *map = {};
  std::memcpy(map, &made, sizeof(made));
  return CUDA_SUCCESS;
}
static CUresult fake_replace_address(CUtensorMap* map, void* base) {
  if (reinterpret_cast<std::uintptr_t>(base) % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(map, &base, sizeof(base));  // it comes first
  return CUDA_SUCCESS;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned int, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  ENTER;
  *function = nullptr;
  if (name == std::string_view("cuTensorMapEncodeTiled")) *function = reinterpret_cast<void*>(&fake_encode_tiled);
  if (name == std::string_view("cuTensorMapReplaceAddress")) *function = reinterpret_cast<void*>(&fake_replace_address);
  *found = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  ENTER;
  const std::lock_guard lock(machine().mutex);
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) machine().shared_allowed[function] = value;
  return cudaSuccess;
}

// What nvcc's objects call: they tell the names of their kernels before main().
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  // The device's name is mangled: _ZN4mlxn3gpu7kernels16rms_norm_f16_f32ENS... ; a length stands before each part of it.
  const std::string_view text = name;
  std::string plain(text);
  for (const std::string_view prefix : {"_ZN4mlxn3gpu7kernels", "_ZN4mlxn4tile"}) {
    if (text.substr(0, prefix.size()) != prefix) continue;
    std::size_t length = 0, at = prefix.size();
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) length = length * 10 + static_cast<std::size_t>(text[at] - '0');
    plain = text.substr(at, length);
  }
  const std::lock_guard lock(machine().mutex);
  machine().functions[host] = plain;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorUnknown; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorUnknown; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorUnknown; }

}  // extern "C"

namespace mlxn::cuda {
bool driver_is_installed() noexcept { return true; }
}  // namespace mlxn::cuda
