#include "backends/cpu/command_list.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "backends/cpu/device.h"
#include "base/error.h"

namespace mlxn::cpu {

struct CallableCall {
  std::shared_ptr<const mlxn::Kernel> kernel;
  std::vector<std::span<std::byte>> bindings;
  std::vector<std::byte> constants;
  std::uint64_t grid = 0;
  std::string label;
  std::mutex mutex;
  std::optional<Error> error;  // of the first thread that failed in the current run
};

namespace {

constexpr std::uint64_t kArenaBytes = std::uint64_t{1} << 20;

/// Copies and fills move this much per chunk: enough to amortise the counter, little enough to balance the team.
constexpr std::uint64_t kCopyChunk = std::uint64_t{128} << 10;

struct CopyArgs {
  In<std::byte> from;
  Out<std::byte> to;
  std::uint64_t bytes;
};
void copy_bytes(const CopyArgs& args, const CpuContext& context) {
  context.for_chunks(args.bytes, kCopyChunk, [&](std::uint64_t begin, std::uint64_t end) {
    std::memcpy(args.to.ptr + begin, args.from.ptr + begin, end - begin);
  });
}
constexpr auto kCopy = kernel<&copy_bytes>("copy_cpu");

struct FillArgs {
  Out<std::byte> to;
  std::uint64_t bytes;
  std::uint32_t value;
};
void fill_bytes(const FillArgs& args, const CpuContext& context) {
  context.for_chunks(args.bytes, kCopyChunk, [&](std::uint64_t begin, std::uint64_t end) {
    std::memset(args.to.ptr + begin, static_cast<int>(args.value), end - begin);
  });
}
constexpr auto kFill = kernel<&fill_bytes>("fill_cpu");

struct CallArgs {
  CallableCall* call;
};
void call_callable(const CallArgs& args, const CpuContext& context) {
  CallableCall& call = *args.call;
  const auto share = context.share(call.grid);
  if (share.begin == share.end) return;
  const Result<void> result = mlxn::detail::guarded([&] {
    return call.kernel->callable()({call.bindings, call.constants, share.begin, share.end, call.grid});
  });
  if (result) return;
  const std::lock_guard lock(call.mutex);
  if (!call.error) call.error = result.error();
}

}  // namespace

CpuCommandList::CpuCommandList(std::shared_ptr<CpuDevice> device, const EncoderOptions& options)
    : CommandList(device, options), team_(&device->team()) {}

CpuCommandList::~CpuCommandList() = default;

Result<void> CpuCommandList::encode(std::string_view name, ErasedKernel entry, const void* args, std::size_t args_bytes,
                                    const LaunchRecord& record) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    if (args_bytes > kMaxArgsBytes || record.range_count > kMaxBindings) {
      return make_error(ErrorCode::internal, "{}: a launch struct of {} bytes, at most {}", name, args_bytes, kMaxArgsBytes);
    }
    nodes_.reserve(nodes_.size() + 1 > nodes_.capacity() ? std::max<std::size_t>(16, nodes_.capacity() * 2) : 0);
    patches_.reserve(patches_.size() + static_cast<std::size_t>(record.patch_count));
    const bool wait = track(record);
    const auto index = static_cast<std::uint32_t>(nodes_.size());
    Node& node = nodes_.emplace_back();
    node.run = entry;
    node.name = name;
    node.wait = wait && index != 0;
    std::memcpy(node.args, args, args_bytes);
    for (int i = 0; i < record.patch_count; ++i) {
      const ScalarPatch& patch = record.patches[static_cast<std::size_t>(i)];
      patches_.push_back({patch.parameter, index, patch.field, patch.size});
    }
    if (recording_graph) {
      for (int i = 0; i < record.range_count; ++i) {
        const BoundRange& range = record.ranges[static_cast<std::size_t>(i)];
        bound_.push_back({*range.allocation, range.begin, range.end, index, range.access, range.field});
      }
    }
    return {};
  });
}

Result<Tensor> CpuCommandList::scratch(std::uint64_t bytes) {
  const auto rounded = static_cast<std::int64_t>((bytes + 63) / 64 * 64);
  const auto wanted = static_cast<std::uint64_t>(rounded);
  if (!arena_ || wanted > arena_->bytes()) {
    // Twice the request, so that two dispatches in a row need not share the bytes and can overlap.
    MLXN_TRY(arena_, static_cast<CpuDevice&>(*device_).allocate_scratch(std::max(kArenaBytes, wanted * 2)));
    arena_used_ = 0;
  }
  if (arena_->bytes() - arena_used_ < wanted) arena_used_ = 0;
  MLXN_TRY(Tensor tensor, Tensor::make(arena_, DType::u8, {rounded}, arena_used_));
  arena_used_ += wanted;
  return tensor;
}

std::size_t CpuCommandList::barriers() const noexcept {
  return static_cast<std::size_t>(std::count_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.wait; }));
}

Result<void> CpuCommandList::dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    auto call = std::make_unique<CallableCall>();
    call->kernel = dispatch.kernel;
    for (const CommandEncoder::Binding& binding : dispatch.bindings) {
      call->bindings.push_back({static_cast<std::byte*>(binding.tensor.unsafe_data()), binding.tensor.bytes()});
    }
    call->constants.assign(dispatch.constants.begin(), dispatch.constants.end());
    call->grid = dispatch.grid;
    call->label = dispatch.label.empty() ? dispatch.kernel->info().name : std::string(dispatch.label);
    const CallArgs args{call.get()};
    calls_.push_back(std::move(call));
    return encode("callable", &detail::Thunk<&call_callable>::run, &args, sizeof(args), record);
  });
}

Result<void> CpuCommandList::upload(const Tensor& to, std::span<const std::byte> from) {
  // The bytes are kept in an allocation of their own until the list goes away: a later scratch request must not reuse them.
  MLXN_TRY(auto allocation, static_cast<CpuDevice&>(*device_).allocate_scratch(from.size()));
  std::memcpy(allocation->data(), from.data(), from.size());
  MLXN_TRY(const Tensor staged, Tensor::make(allocation, DType::u8, {static_cast<std::int64_t>(from.size())}));
  Launch<CopyArgs> launch;
  launch.bind(launch.args.from, staged);
  launch.bind(launch.args.to, to);
  launch.args.bytes = from.size();
  return encode(kCopy.name, kCopy.run, &launch.args, sizeof(CopyArgs), launch.record);
}

Result<void> CpuCommandList::copy(const Tensor& to, const Tensor& from) {
  Launch<CopyArgs> launch;
  launch.bind(launch.args.from, from);
  launch.bind(launch.args.to, to);
  launch.args.bytes = from.bytes();
  return encode(kCopy.name, kCopy.run, &launch.args, sizeof(CopyArgs), launch.record);
}

Result<void> CpuCommandList::fill(const Tensor& to, std::byte value) {
  Launch<FillArgs> launch;
  launch.bind(launch.args.to, to);
  launch.args.bytes = to.bytes();
  launch.args.value = std::to_integer<std::uint32_t>(value);
  return encode(kFill.name, kFill.run, &launch.args, sizeof(FillArgs), launch.record);
}

void CpuCommandList::patch(int parameter, std::int64_t value) noexcept {
  for (const Patch& patch : patches_) {
    if (patch.parameter != parameter) continue;
    // Little-endian, so the low bytes of the 64-bit value are the 32-bit one.
    std::memcpy(nodes_[patch.node].args + patch.field, &value, patch.size);
  }
}

Result<void> CpuCommandList::rebind(const Tensor& from, const Tensor& to) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    const std::uint64_t from_end = from.byte_offset() + from.bytes();
    const std::uint64_t to_end = to.byte_offset() + to.bytes();
    for (const Bound& bound : bound_) {
      const bool is_from = bound.allocation == from.allocation() && bound.begin < from_end && from.byte_offset() < bound.end;
      if (is_from && (bound.begin < from.byte_offset() || bound.end > from_end)) {
        return make_error(ErrorCode::aliased, "graph: dispatch {} binds more than the tensor to replace", bound.node);
      }
      if (!is_from && bound.allocation == to.allocation() && bound.begin < to_end && to.byte_offset() < bound.end) {
        return make_error(ErrorCode::aliased, "graph: the new buffer overlaps one that dispatch {} binds", bound.node);
      }
    }
    retain(to.allocation());
    for (Bound& bound : bound_) {
      if (bound.allocation != from.allocation() || bound.begin < from.byte_offset() || bound.end > from_end) continue;
      bound.begin = bound.begin - from.byte_offset() + to.byte_offset();
      bound.end = bound.end - from.byte_offset() + to.byte_offset();
      bound.allocation = to.allocation();
      std::byte* address = bound.allocation->data() + bound.begin;
      std::memcpy(nodes_[bound.node].args + bound.field, &address, sizeof(address));
    }
    // The joins stay right: `to` overlaps nothing else, so every conflict is the one that `from` had.
    return {};
  });
}

CpuCommandList::Outcome CpuCommandList::run(Team& team) noexcept {
  struct Job {
    CpuCommandList* list;
    Team* team;
  } job{this, &team};
  for (Node& node : nodes_) node.chunks = 0;
  for (auto& call : calls_) call->error.reset();
  team.run(
      [](void* data, int thread) {
        const Job& j = *static_cast<Job*>(data);
        CpuContext context;
        context.thread = thread;
        context.threads = j.team->size();
        context.team = j.team;
        for (Node& node : j.list->nodes_) {
          if (node.wait) j.team->barrier();
          context.chunks = &node.chunks;
          node.run(node.args, context);
        }
      },
      &job);
  Outcome outcome;
  outcome.dispatches = nodes_.size();
  outcome.barriers = barriers();
  for (const auto& call : calls_) {
    if (!call->error) continue;
    outcome.error = call->error->with_context(call->label);
    break;
  }
  return outcome;
}

int threads(const CommandEncoder& encoder) noexcept {
  return static_cast<CpuDevice&>(*encoder.list()->device()).team().size();
}

Result<Tensor> scratch(CommandEncoder& encoder, std::uint64_t bytes) {
  return static_cast<CpuCommandList*>(encoder.list())->scratch(bytes);
}

Result<void> encode_erased(CommandEncoder& encoder, std::string_view name, ErasedKernel run, const void* args,
                           std::size_t args_bytes, const LaunchRecord& record) {
  return static_cast<CpuCommandList*>(encoder.list())->encode(name, run, args, args_bytes, record);
}

}  // namespace mlxn::cpu
