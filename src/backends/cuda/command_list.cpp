#include "backends/cuda/command_list.h"

#include <algorithm>
#include <cstring>

#include "backends/cuda/kernel_table.h"
#include "backends/cuda/queue.h"

namespace mlxn::cuda {

/// A dispatch of a user's kernel: a node's kernel whose arguments are pointers, in the node, and constants, here.
struct CudaCommandList::UserCall : gpu::KernelInfo {
  UserCall(const mlxn::Kernel& k, const UserCode& code)
      : gpu::KernelInfo{k.info().name, code.group_threads(), 0, 0, code.shared_bytes()} {
    device_function.store(code.function(), std::memory_order_relaxed);
  }
  std::shared_ptr<const mlxn::Kernel> kept;
  std::size_t pointers = 0;
  std::vector<std::byte> constants;
};

/// What the runtime takes of a launch.
struct CudaCommandList::KernelCall {
  const void* function = nullptr;
  dim3 grid, threads;
  std::uint32_t shared_bytes = 0;  // besides what the kernel declares
  dim3 cluster;
  bool starts_early = false;
  void* params[kMaxBindings + 1];

  [[nodiscard]] bool in_clusters() const noexcept { return cluster.x * cluster.y * cluster.z > 1; }
  [[nodiscard]] cudaLaunchAttributeValue cluster_value() const noexcept {
    cudaLaunchAttributeValue value{};
    value.clusterDim.x = cluster.x;
    value.clusterDim.y = cluster.y;
    value.clusterDim.z = cluster.z;
    return value;
  }
  [[nodiscard]] cudaError_t launch(cudaStream_t stream) noexcept {
    if (!in_clusters() && !starts_early) return cudaLaunchKernel(function, grid, threads, params, shared_bytes, stream);
    cudaLaunchAttribute attributes[2];
    unsigned count = 0;
    if (in_clusters()) {
      attributes[count].id = cudaLaunchAttributeClusterDimension;
      attributes[count++].val = cluster_value();
    }
    if (starts_early) {
      attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[count].val = {};
      attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = count;
    return cudaLaunchKernelExC(&config, function, params);
  }
};

namespace {

constexpr std::uint64_t kStagingBytes = std::uint64_t{64} << 10;
constexpr std::uint64_t kStagingAlignment = 64;
constexpr std::uint32_t kSharedWithoutAsking = 48 << 10;
constexpr std::uint64_t kMostPitch = 0x7fffffff;  // of a two-dimensional copy

/// Whether the rows can go as one copy, of rows that do not overlap.
bool is_one_copy(const gpu::GpuCommandList::CopyArgs& copy) noexcept {
  return copy.rows == 1 || (copy.from_pitch >= copy.row_bytes && copy.to_pitch >= copy.row_bytes && copy.from_pitch <= kMostPitch &&
                            copy.to_pitch <= kMostPitch);
}

template <class T>
T args_of(const gpu::GpuCommandList::Node& node) noexcept {
  T args;
  std::memcpy(&args, node.args, sizeof(args));
  return args;
}

}  // namespace

const KernelEntry* find_kernel(std::string_view name) noexcept {
  int count = 0;
  const KernelTable* const* const tables = kernel_tables(count);
  for (const KernelTable* table : std::span(tables, static_cast<std::size_t>(count))) {
    for (const KernelEntry& entry : std::span(table->entries, static_cast<std::size_t>(table->count))) {
      if (entry.name == name) return &entry;
    }
  }
  return nullptr;
}

const void* kernel_function(const gpu::KernelInfo& kernel) noexcept {
  if (const void* known = kernel.device_function.load(std::memory_order_acquire)) return known;
  const KernelEntry* const entry = find_kernel(kernel.name);
  if (entry == nullptr) return nullptr;
  kernel.device_function.store(entry->function, std::memory_order_release);
  return entry->function;
}

UserCode::~UserCode() {
  if (cudaSetDevice(ordinal_) == cudaSuccess) static_cast<void>(cudaLibraryUnload(library_));
  static_cast<void>(cudaGetLastError());
}

CudaCommandList::CudaCommandList(std::shared_ptr<CudaDevice> device, const EncoderOptions& options)
    : GpuCommandList(std::move(device), options), early_starts_(options.early_starts && options.hazards != HazardMode::serial) {}

CudaCommandList::~CudaCommandList() { drop_graph(); }

void CudaCommandList::drop_graph() noexcept {
  if (exec_ == nullptr) return;
  static_cast<void>(cudaSetDevice(cuda().ordinal()));
  static_cast<void>(cudaGraphExecDestroy(exec_));
  static_cast<void>(cudaGetLastError());
  exec_ = nullptr;
}

// ---- recording ----------------------------------------------------------------------------------------------------------

Result<void> CudaCommandList::dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    const mlxn::KernelInfo& info = dispatch.kernel->info();
    const auto* const code = dynamic_cast<const UserCode*>(dispatch.kernel->code().get());
    if (code == nullptr) {
      return make_error(ErrorCode::unsupported, "{}: no CUDA source: a GPU does not run callables", info.name);
    }
    if (code->ordinal() != cuda().ordinal()) {
      return make_error(ErrorCode::wrong_device, "{}: a kernel for cuda:{}, the device is cuda:{}", info.name, code->ordinal(),
                        cuda().ordinal());
    }
    const std::uint64_t groups = dispatch.grid / code->group_threads() + (dispatch.grid % code->group_threads() != 0 ? 1 : 0);
    if (groups > 0x7fffffffu) {
      return make_error(ErrorCode::limit_exceeded, "{}: {} work items are {} groups of {}, a launch takes {}", info.name, dispatch.grid,
                        groups, code->group_threads(), 0x7fffffffu);
    }
    auto call = std::make_unique<UserCall>(*dispatch.kernel, *code);
    call->kept = dispatch.kernel;
    call->pointers = dispatch.bindings.size();
    call->constants.assign(dispatch.constants.begin(), dispatch.constants.end());
    std::array<const std::byte*, kMaxBindings> pointers{};
    for (std::size_t i = 0; i < dispatch.bindings.size(); ++i) {
      if (dispatch.bindings[i].tensor.bytes() != 0) pointers[i] = device_address(dispatch.bindings[i].tensor);
    }
    LaunchRecord by_offset = record;  // fields are numbers of bindings there
    for (int i = 0; i < by_offset.range_count; ++i) {
      BoundRange& range = by_offset.ranges[static_cast<std::size_t>(i)];
      range.field = static_cast<std::uint16_t>(range.field * sizeof(pointers[0]));
    }
    make_room(user_calls_, 1);
    Node node{};
    node.kind = Kind::user_kernel;
    node.kernel = call.get();
    node.grid = {static_cast<std::uint32_t>(groups), 1, 1};
    node.args_bytes = static_cast<std::uint32_t>(call->pointers * sizeof(pointers[0]));
    MLXN_CHECK(add(info.name, node, pointers.data(), by_offset));
    user_calls_.push_back(std::move(call));
    return {};
  });
}

Result<std::span<std::byte>> CudaCommandList::stage(std::uint64_t bytes) {
  return mlxn::detail::guarded([&]() -> Result<std::span<std::byte>> {
    const std::uint64_t room = staging_.empty() ? 0 : staging_.back()->bytes() - std::min(staging_.back()->bytes(), staging_used_);
    if (room < bytes) {
      make_room(staging_, 1);
      MLXN_TRY(auto block, cuda().allocate_staging(std::max(bytes, kStagingBytes)));
      staging_.push_back(std::move(block));
      staging_used_ = 0;
    }
    std::byte* const data = staging_.back()->data() + staging_used_;
    staging_used_ += (bytes + kStagingAlignment - 1) / kStagingAlignment * kStagingAlignment;
    return std::span(data, static_cast<std::size_t>(bytes));
  });
}

Result<std::shared_ptr<Allocation>> CudaCommandList::allocate_scratch(std::uint64_t bytes) { return cuda().allocate_scratch(bytes); }

Result<std::shared_ptr<Allocation>> CudaCommandList::allocate_counters(std::uint64_t bytes) { return cuda().allocate_counters(bytes); }

Result<void> CudaCommandList::download(std::span<std::byte> to, const Tensor& from) {
  MLXN_CHECK(cuda().use());
  if (is_pinned(to.data())) return GpuCommandList::download(to, from);
  // A copy to other memory would block the host where it is submitted, and a graph takes none.
  return mlxn::detail::guarded([&]() -> Result<void> {
    make_room(downloads_, 1);
    MLXN_TRY(const std::span<std::byte> staged, stage(to.size()));
    MLXN_CHECK(GpuCommandList::download(staged, from));
    downloads_.push_back({to.data(), staged.data(), to.size()});
    return {};
  });
}

void CudaCommandList::finish() noexcept {
  for (const Download& download : downloads_) std::memcpy(download.to, download.from, download.bytes);
}

// ---- running ------------------------------------------------------------------------------------------------------------

std::string_view CudaCommandList::name_of(const Node& node) noexcept {
  switch (node.kind) {
    case Kind::kernel:
    case Kind::user_kernel: return node.kernel->name;
    case Kind::copy: return "copy";
    case Kind::upload: return "upload";
    case Kind::download: return "download";
    case Kind::fill: return "fill";
  }
  return "";
}

void CudaCommandList::add_names(std::uint64_t count, std::vector<std::string>& names) const {
  for (const Node& node : nodes().first(static_cast<std::size_t>(count))) {
    const std::string_view name = name_of(node);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
  }
}

Result<void> CudaCommandList::allow_shared(const gpu::KernelInfo& kernel, const void* function) {
  if (kernel.shared_bytes + kernel.dynamic_shared_bytes <= kSharedWithoutAsking) return {};
  const int ordinal = cuda().ordinal();
  const std::uint64_t bit = ordinal < 64 ? std::uint64_t{1} << ordinal : 0;  // beyond, it is asked for each time
  if ((kernel.shared_allowed.load(std::memory_order_relaxed) & bit) != 0) return {};
  const cudaError_t code =
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kernel.dynamic_shared_bytes));
  if (code != cudaSuccess) return cuda().failed(fmt::format("{} bytes of shared memory for {}", kernel.dynamic_shared_bytes, kernel.name), code);
  kernel.shared_allowed.fetch_or(bit, std::memory_order_relaxed);
  return {};
}

Result<void> CudaCommandList::call_of(const Node& node, KernelCall& call) {
  const gpu::KernelInfo& kernel = *node.kernel;
  call.function = kernel_function(kernel);
  if (call.function == nullptr) return make_error(ErrorCode::internal, "{}: not among the CUDA kernels", kernel.name);
  call.grid = dim3(node.grid.x, node.grid.y, node.grid.z);
  call.threads = dim3(kernel.threads);
  call.shared_bytes = kernel.dynamic_shared_bytes;
  call.cluster = dim3(kernel.cluster.x, kernel.cluster.y, kernel.cluster.z);
  call.starts_early = kernel.starts_early && cuda().starts_early() && early_starts_;
  if (node.kind == Kind::kernel) {
    MLXN_CHECK(allow_shared(kernel, call.function));
    call.params[0] = node.args;
    return {};
  }
  const auto& user = static_cast<const UserCall&>(kernel);  // whose shared memory was asked for when it was compiled
  for (std::size_t i = 0; i < user.pointers; ++i) call.params[i] = node.args + i * sizeof(void*);
  call.params[user.pointers] = const_cast<std::byte*>(user.constants.data());
  return {};
}

Result<void> CudaCommandList::issue(const Node& node, cudaStream_t stream) {
  cudaError_t code = cudaSuccess;
  switch (node.kind) {
    case Kind::kernel:
    case Kind::user_kernel: {
      KernelCall call;
      MLXN_CHECK(call_of(node, call));
      code = call.launch(stream);
      break;
    }
    case Kind::fill: {
      const auto fill = args_of<FillArgs>(node);
      code = cudaMemsetAsync(fill.to, static_cast<int>(fill.value), fill.bytes, stream);
      break;
    }
    case Kind::copy:
    case Kind::upload:
    case Kind::download: {
      const auto copy = args_of<CopyArgs>(node);
      if (copy.rows > 1 && is_one_copy(copy)) {
        code = cudaMemcpy2DAsync(copy.to, copy.to_pitch, copy.from, copy.from_pitch, copy.row_bytes, copy.rows, cudaMemcpyDefault, stream);
        break;
      }
      for (std::uint64_t row = 0; row < copy.rows && code == cudaSuccess; ++row) {
        code = cudaMemcpyAsync(copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.row_bytes, cudaMemcpyDefault, stream);
      }
      break;
    }
  }
  if (code != cudaSuccess) return cuda().failed(name_of(node), code);
  return {};
}

Result<void> CudaCommandList::issue(const CudaQueue& queue, std::atomic<std::uint64_t>& issued) {
  const bool is_serial = mode_ == HazardMode::serial;
  cudaError_t code = cudaSuccess;
  // Then no fault of earlier work is taken for one of the first node.
  if (is_serial) code = cudaStreamSynchronize(queue.stream());
  if (code != cudaSuccess) return cuda().failed("waiting for earlier work", code);
  if (parameter_block()) {  // a graph's record, in serial mode
    code = cudaMemcpyAsync(parameter_block()->data(), parameter_values().data(), parameter_values().size_bytes(),
                           cudaMemcpyHostToDevice, queue.stream());
    if (code != cudaSuccess) return cuda().failed("a graph's parameters", code);
  }
  for (const Node& node : nodes()) {
    MLXN_CHECK(issue(node, queue.stream()));
    issued.fetch_add(1, std::memory_order_relaxed);
    if (is_serial) code = cudaStreamSynchronize(queue.stream());
    if (code == cudaSuccess) continue;
    if (!is_fault(code)) return cuda().failed(name_of(node), code);
    cuda().lose(code, name_of(node), &queue);
    return cuda().take_fault();
  }
  return {};
}

// ---- as a graph ---------------------------------------------------------------------------------------------------------

namespace {

/// The kernel `node` may start while the kernel `from` runs.
cudaError_t let_start_early(cudaGraph_t graph, cudaGraphNode_t from, cudaGraphNode_t node) noexcept {
  cudaGraphEdgeData edge{};
  edge.from_port = cudaGraphKernelNodePortProgrammatic;
  edge.type = cudaGraphDependencyTypeProgrammatic;
#if CUDART_VERSION >= 13000
  return cudaGraphAddDependencies(graph, &from, &node, &edge, 1);
#else
  return cudaGraphAddDependencies_v2(graph, &from, &node, &edge, 1);
#endif
}

/// A chain: each node after the last.
struct Dependencies {
  explicit Dependencies(const cudaGraphNode_t& last) noexcept : nodes(&last), count(last == nullptr ? 0 : 1) {}
  const cudaGraphNode_t* nodes;
  std::size_t count;
};

cudaError_t add_copy_node(cudaGraph_t graph, cudaGraphNode_t& last, std::byte* to, const std::byte* from, std::uint64_t bytes) noexcept {
  const Dependencies after(last);
  cudaGraphNode_t node = nullptr;
  const cudaError_t code = cudaGraphAddMemcpyNode1D(&node, graph, after.nodes, after.count, to, from, bytes, cudaMemcpyDefault);
  if (code == cudaSuccess) last = node;
  return code;
}

}  // namespace

Result<void> CudaCommandList::add_to_graph(const Node& node, cudaGraph_t graph, cudaGraphNode_t& last, bool& last_is_kernel) {
  cudaError_t code = cudaSuccess;
  const Dependencies after(last);
  cudaGraphNode_t added = nullptr;
  switch (node.kind) {
    case Kind::kernel:
    case Kind::user_kernel: {
      KernelCall call;
      MLXN_CHECK(call_of(node, call));
      cudaKernelNodeParams params{};
      params.func = const_cast<void*>(call.function);
      params.gridDim = call.grid;
      params.blockDim = call.threads;
      params.sharedMemBytes = call.shared_bytes;
      params.kernelParams = call.params;
      const bool overlaps = call.starts_early && last_is_kernel;
      code = cudaGraphAddKernelNode(&added, graph, after.nodes, overlaps ? 0 : after.count, &params);
      if (code == cudaSuccess && overlaps) code = let_start_early(graph, last, added);
      if (code == cudaSuccess && call.in_clusters()) {
        const cudaLaunchAttributeValue value = call.cluster_value();
        code = cudaGraphKernelNodeSetAttribute(added, cudaLaunchAttributeClusterDimension, &value);
      }
      break;
    }
    case Kind::fill: {
      const auto fill = args_of<FillArgs>(node);
      cudaMemsetParams params{};
      params.dst = fill.to;
      params.value = fill.value;
      params.elementSize = 1;
      params.width = fill.bytes;
      params.height = 1;
      code = cudaGraphAddMemsetNode(&added, graph, after.nodes, after.count, &params);
      break;
    }
    case Kind::copy:
    case Kind::upload:
    case Kind::download: {
      const auto copy = args_of<CopyArgs>(node);
      if (copy.rows > 1 && is_one_copy(copy)) {
        cudaMemcpy3DParms params{};
        params.srcPtr = {const_cast<std::byte*>(copy.from), copy.from_pitch, copy.row_bytes, copy.rows};
        params.dstPtr = {copy.to, copy.to_pitch, copy.row_bytes, copy.rows};
        params.extent = {copy.row_bytes, copy.rows, 1};
        params.kind = cudaMemcpyDefault;
        code = cudaGraphAddMemcpyNode(&added, graph, after.nodes, after.count, &params);
        break;
      }
      for (std::uint64_t row = 0; row < copy.rows && code == cudaSuccess; ++row) {
        code = add_copy_node(graph, last, copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.row_bytes);
      }
      break;
    }
  }
  if (code != cudaSuccess) return cuda().failed(fmt::format("a graph's node of {}", name_of(node)), code);
  if (added != nullptr) last = added;
  last_is_kernel = node.kind == Kind::kernel || node.kind == Kind::user_kernel;
  return {};
}

Result<void> CudaCommandList::make_graph() {
  cudaGraph_t graph = nullptr;
  if (const cudaError_t code = cudaGraphCreate(&graph, 0); code != cudaSuccess) return cuda().failed("a graph", code);
  const auto fill = [&]() -> Result<void> {
    cudaGraphNode_t last = nullptr;
    if (parameter_block()) {
      const cudaError_t code = add_copy_node(graph, last, parameter_block()->data(), parameters_, parameter_values().size_bytes());
      if (code != cudaSuccess) return cuda().failed("a graph's parameters", code);
    }
    bool last_is_kernel = false;
    for (const Node& node : nodes()) MLXN_CHECK(add_to_graph(node, graph, last, last_is_kernel));
    if (const cudaError_t code = cudaGraphInstantiate(&exec_, graph, 0); code != cudaSuccess) {
      exec_ = nullptr;
      return cuda().failed(fmt::format("a graph of {} nodes", nodes().size()), code);
    }
    return {};
  };
  auto result = mlxn::detail::guarded(fill);
  static_cast<void>(cudaGraphDestroy(graph));
  return result;
}

Result<void> CudaCommandList::prepare_graph() {
  if (nodes().empty()) return {};
  if (exec_ != nullptr && exec_rebinds_ == rebinds()) return {};
  drop_graph();
  if (parameter_block() && parameters_ == nullptr) {
    MLXN_TRY(const std::span<std::byte> pinned, stage(parameter_values().size_bytes()));
    std::memcpy(pinned.data(), parameter_values().data(), pinned.size());
    parameters_ = pinned.data();
  }
  MLXN_CHECK(make_graph());
  exec_rebinds_ = rebinds();
  return {};
}

Result<void> CudaCommandList::launch_graph(cudaStream_t stream) {
  if (exec_ == nullptr) return {};
  // Values change only while no replay is unfinished (Graph::set), so that none reads them now.
  if (parameters_ != nullptr && std::memcmp(parameters_, parameter_values().data(), parameter_values().size_bytes()) != 0) {
    std::memcpy(parameters_, parameter_values().data(), parameter_values().size_bytes());
  }
  if (const cudaError_t code = cudaGraphLaunch(exec_, stream); code != cudaSuccess) return cuda().failed("launching a graph", code);
  return {};
}

}  // namespace mlxn::cuda
