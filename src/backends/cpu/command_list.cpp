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
  std::uint32_t index = 0;
  std::atomic<std::uint32_t>* failed = nullptr;  // of the command list
  std::mutex mutex;
  std::optional<Error> error;  // of the first thread that failed in the current run
};

namespace {

constexpr std::uint32_t kNoneFailed = 0xffffffffu;
constexpr std::uint64_t kArenaBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 48;  // beyond any machine's memory, and sums of them stay in 64 bits

/// Copies and fills move this much per chunk: enough to amortise the counter, little enough to balance the team.
constexpr std::uint64_t kCopyChunk = std::uint64_t{128} << 10;

struct CopyArgs {
  In<std::byte> from;
  Out<std::byte> to;
  std::uint64_t rows, row_bytes;
  std::uint64_t from_pitch, to_pitch;  // bytes from row to row
};
void copy_rows(const CopyArgs& args, const CpuContext& context) {
  if (args.rows == 1) {
    context.for_chunks(args.row_bytes, kCopyChunk, [&](std::uint64_t begin, std::uint64_t end) {
      std::memcpy(args.to.ptr + begin, args.from.ptr + begin, end - begin);
    });
    return;
  }
  const std::uint64_t rows_per_chunk = std::max<std::uint64_t>(1, kCopyChunk / args.row_bytes);
  context.for_chunks(args.rows, rows_per_chunk, [&](std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t row = begin; row < end; ++row) {
      std::memcpy(args.to.ptr + row * args.to_pitch, args.from.ptr + row * args.from_pitch, args.row_bytes);
    }
  });
}
constexpr auto kCopy = kernel<&copy_rows>("copy_cpu");

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

Result<void> call_guarded(const CallableCall& call, const CallableArgs& args) noexcept {
  try {
    return call.kernel->callable()(args);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory);
  } catch (const std::exception& e) {
    return Error(ErrorCode::device, e.what());
  } catch (...) {
    return Error(ErrorCode::device, "the callable threw something that is no std::exception");
  }
}

struct CallArgs {
  CallableCall* call;
};
void call_callable(const CallArgs& args, const CpuContext& context) {
  CallableCall& call = *args.call;
  if (call.failed->load(std::memory_order_relaxed) < call.index) return;  // nothing joins inside, so threads may differ
  const auto share = context.share(call.grid);
  if (share.begin == share.end) return;
  const Result<void> result = call_guarded(call, {call.bindings, call.constants, share.begin, share.end, call.grid});
  if (result) return;
  {
    const std::lock_guard lock(call.mutex);
    if (!call.error) call.error = result.error();
  }
  std::uint32_t first = call.failed->load(std::memory_order_relaxed);
  while (call.index < first && !call.failed->compare_exchange_weak(first, call.index, std::memory_order_relaxed)) {
  }
}

}  // namespace

CpuCommandList::CpuCommandList(std::shared_ptr<CpuDevice> device, const EncoderOptions& options)
    : CommandList(std::move(device), options), failed_(kNoneFailed) {}

CpuCommandList::~CpuCommandList() {
  if (blocks_) cpu().give_back_records(std::move(blocks_));
}

CpuDevice& CpuCommandList::cpu() const noexcept { return static_cast<CpuDevice&>(*device_); }

CpuCommandList::Node* CpuCommandList::make_node(std::size_t args_bytes) {
  const std::size_t bytes = sizeof(Node) + (args_bytes + 63) / 64 * 64;
  if (RecordBlock::kBytes - block_used_ < bytes) {
    std::unique_ptr<RecordBlock> block = cpu().take_records();
    if (!block) return nullptr;
    block->next = std::move(blocks_);
    blocks_ = std::move(block);
    block_used_ = 0;
  }
  Node* node = new (blocks_->data + block_used_) Node();
  block_used_ += bytes;
  return node;
}

Result<void> CpuCommandList::encode(std::string_view name, ErasedKernel entry, const void* args, std::size_t args_bytes,
                                    const LaunchRecord& record, CallableCall* call) {
  if (args_bytes > kMaxArgsBytes || record.range_count > kMaxBindings || record.patch_count > kMaxScalarPatches) {
    return make_error(ErrorCode::internal, "{}: {} argument bytes, {} bindings, {} parameters; at most {}, {}, {}", name, args_bytes,
                      record.range_count, record.patch_count, kMaxArgsBytes, kMaxBindings, kMaxScalarPatches);
  }
  for (int i = 0; i < record.patch_count; ++i) {
    if (static_cast<std::size_t>(record.patches[static_cast<std::size_t>(i)].parameter) >= parameters.size()) {
      return make_error(ErrorCode::wrong_state, "{}: a parameter of another graph", name);
    }
  }
  return mlxn::detail::guarded([&]() -> Result<void> {
    // All that can fail comes first: a dispatch is recorded as a whole or not at all.
    make_room_to_track();
    make_room(patches_, static_cast<std::size_t>(record.patch_count));
    if (recording_graph) make_room(bound_, static_cast<std::size_t>(record.range_count));
    Node* node = make_node(args_bytes);
    if (node == nullptr) return make_error(ErrorCode::out_of_memory, "{}: no memory to record it", name);
    node->run = entry;
    node->name = name;
    node->index = static_cast<std::uint32_t>(dispatches_);
    node->wait = track(record) && first_ != nullptr;
    std::memcpy(node->args(), args, args_bytes);
    (first_ == nullptr ? first_ : last_->next) = node;
    last_ = node;
    ++dispatches_;
    barriers_ += node->wait ? 1 : 0;
    for (int i = 0; i < record.patch_count; ++i) {
      const ScalarPatch& patch = record.patches[static_cast<std::size_t>(i)];
      patches_.push_back({node, patch.parameter, patch.field, patch.size, patch.min, patch.max});
    }
    for (int i = 0; i < record.range_count; ++i) {
      const BoundRange& range = record.ranges[static_cast<std::size_t>(i)];
      if (*range.allocation == arena_) arena_bound_ = true;
      if (!recording_graph || (*range.allocation)->scratch) continue;
      bound_.push_back({*range.allocation, range.begin, range.end, node, call, range.field});
    }
    return {};
  });
}

Result<Tensor> CpuCommandList::scratch(std::uint64_t bytes) {
  if (bytes > kMostBytes) return make_error(ErrorCode::out_of_memory, "scratch: {} bytes wanted", bytes);
  const std::uint64_t wanted = (bytes + 63) / 64 * 64;
  const std::uint64_t room = arena_ ? arena_->bytes() : 0;
  // From its start again, unless an operation still holds a piece: besides that there are the handle here and, once a
  // dispatch has bound the arena, the one that keeps it alive.
  const bool may_restart = arena_ && wanted <= room && arena_.use_count() == (arena_bound_ ? 2 : 1);
  if (room - arena_used_ < wanted && may_restart) arena_used_ = 0;
  if (room - arena_used_ < wanted) {
    // Twice the request, so that two dispatches in a row need not share the bytes and can overlap.
    MLXN_TRY(arena_, cpu().allocate_scratch(std::max(kArenaBytes, wanted * 2)));
    arena_used_ = 0;
    arena_bound_ = false;
  }
  MLXN_TRY(Tensor tensor, Tensor::make(arena_, DType::u8, {static_cast<std::int64_t>(wanted)}, arena_used_));
  arena_used_ += wanted;
  return tensor;
}

Result<void> CpuCommandList::dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    auto call = std::make_unique<CallableCall>();
    call->kernel = dispatch.kernel;
    call->bindings.reserve(dispatch.bindings.size());
    for (const CommandEncoder::Binding& binding : dispatch.bindings) {
      call->bindings.push_back({static_cast<std::byte*>(binding.tensor.unsafe_data()), binding.tensor.bytes()});
    }
    call->constants.assign(dispatch.constants.begin(), dispatch.constants.end());
    call->grid = dispatch.grid;
    call->label = fmt::format("{} (dispatch {})", dispatch.label.empty() ? dispatch.kernel->info().name : dispatch.label, dispatches_);
    call->index = static_cast<std::uint32_t>(dispatches_);
    call->failed = &failed_;
    make_room(calls_, 1);
    const CallArgs args{call.get()};
    MLXN_CHECK(encode("callable", &detail::Thunk<&call_callable>::run, &args, sizeof(args), record, call.get()));
    calls_.push_back(std::move(call));
    return {};
  });
}

Result<void> CpuCommandList::upload(const Tensor& to, std::span<const std::byte> from) {
  // The bytes are kept in an allocation of their own until the list goes away: a later scratch request must not reuse them.
  MLXN_TRY(auto allocation, cpu().allocate_scratch(from.size()));
  std::memcpy(allocation->data(), from.data(), from.size());
  MLXN_TRY(const Tensor staged, Tensor::make(allocation, DType::u8, {static_cast<std::int64_t>(from.size())}));
  MLXN_TRY(const Tensor bytes, to.reinterpret(DType::u8, staged.shape()));
  return copy(bytes, staged);
}

namespace {

/// A tensor as evenly spaced rows of contiguous bytes.
struct Rows {
  std::uint64_t count, bytes, pitch;
};
/// With rows of `inner` trailing axes; nothing if the axes before them are not evenly spaced.
std::optional<Rows> rows_of(const Tensor& tensor, int inner) noexcept {
  const DTypeInfo& type = info(tensor.dtype());
  const auto to_bytes = [&](std::int64_t elems) { return static_cast<std::uint64_t>(elems) / type.block_elems * type.block_bytes; };
  std::int64_t row_elems = 1, count = 1, pitch = 0;
  const int rank = tensor.rank();
  for (int axis = rank - 1; axis >= 0; --axis) {
    const std::int64_t size = tensor.dim(axis), stride = tensor.stride(axis);
    if (axis >= rank - inner) {
      if (size != 1 && stride != row_elems) return std::nullopt;
      row_elems *= size;
    } else if (size != 1) {
      if (count == 1) {
        pitch = stride;
      } else if (stride != pitch * count) {
        return std::nullopt;
      }
      count *= size;
    }
  }
  return Rows{static_cast<std::uint64_t>(count), to_bytes(row_elems), to_bytes(pitch)};
}

}  // namespace

Result<void> CpuCommandList::copy(const Tensor& to, const Tensor& from) {
  Launch<CopyArgs> launch;
  launch.bind(launch.args.from, from);
  launch.bind(launch.args.to, to);
  launch.args.rows = 1;
  launch.args.row_bytes = from.bytes();
  if (!from.is_contiguous() || !to.is_contiguous()) {
    std::optional<Rows> source, target;
    // Rows as long as possible: of all trailing axes that both tensors have without gaps.
    for (int inner = from.rank(); inner > 0 && !(source && target); --inner) {
      source = rows_of(from, inner);
      target = rows_of(to, inner);
    }
    if (!source || !target) {
      return make_error(ErrorCode::bad_shape, "copy: the rows of one tensor have gaps or are not evenly spaced");
    }
    launch.args.rows = source->count;
    launch.args.row_bytes = source->bytes;
    launch.args.from_pitch = source->pitch;
    launch.args.to_pitch = target->pitch;
  }
  return encode(kCopy.name, kCopy.run, &launch.args, sizeof(CopyArgs), launch.record);
}

Result<void> CpuCommandList::fill(const Tensor& to, std::byte value) {
  Launch<FillArgs> launch;
  launch.bind(launch.args.to, to);
  launch.args.bytes = to.bytes();
  launch.args.value = std::to_integer<std::uint32_t>(value);
  return encode(kFill.name, kFill.run, &launch.args, sizeof(FillArgs), launch.record);
}

Result<void> CpuCommandList::patch(int parameter, std::int64_t value) {
  for (const Patch& patch : patches_) {
    if (patch.parameter != parameter || (value >= patch.min && value <= patch.max)) continue;
    return make_error(ErrorCode::out_of_range, "graph: parameter '{}' is {}, {} takes {} to {}",
                      parameters[static_cast<std::size_t>(parameter)].name, value, patch.node->name, patch.min, patch.max);
  }
  for (const Patch& patch : patches_) {
    if (patch.parameter != parameter) continue;
    // Little-endian, so the low bytes of the 64-bit value are the 32-bit one.
    std::memcpy(patch.node->args() + patch.field, &value, patch.size);
  }
  return {};
}

Result<void> CpuCommandList::rebind(const Tensor& from, const Tensor& to) {
  const auto* const from_begin = static_cast<const std::byte*>(from.unsafe_data());
  const auto* const to_begin = static_cast<const std::byte*>(to.unsafe_data());
  const std::byte* const from_end = from_begin + from.bytes();
  const std::byte* const to_end = to_begin + to.bytes();
  // Operations choose their kernel by the alignment they see while recording.
  const auto alignment = [](const std::byte* p) { return reinterpret_cast<std::uintptr_t>(p) & -reinterpret_cast<std::uintptr_t>(p); };
  if (alignment(to_begin) < std::min<std::uintptr_t>(64, alignment(from_begin))) {
    return make_error(ErrorCode::bad_shape, "graph: the new buffer is aligned to {} bytes only", alignment(to_begin));
  }
  const auto is_from = [&](const Bound& bound) { return bound.first() < from_end && from_begin < bound.last(); };
  if (std::none_of(bound_.begin(), bound_.end(), is_from)) {
    return make_error(ErrorCode::not_found, "graph: no dispatch binds the tensor to replace");
  }
  for (const Bound& bound : bound_) {
    if (is_from(bound) && (bound.first() < from_begin || bound.last() > from_end)) {
      return make_error(ErrorCode::aliased, "graph: dispatch {} binds more than the tensor to replace", bound.node->index);
    }
    if (!is_from(bound) && bound.first() < to_end && to_begin < bound.last()) {
      return make_error(ErrorCode::aliased, "graph: the new buffer overlaps one that dispatch {} binds", bound.node->index);
    }
  }
  return mlxn::detail::guarded([&]() -> Result<void> {
    std::vector<std::shared_ptr<Allocation>> kept;
    kept.reserve(bound_.size());
    for (const Bound& bound : bound_) kept.push_back(is_from(bound) ? to.allocation() : bound.allocation);
    retain_only(std::move(kept));
    for (Bound& bound : bound_) {
      if (!is_from(bound)) continue;
      const auto offset = static_cast<std::uint64_t>(bound.first() - from_begin) + to.byte_offset();
      bound.end = bound.end - bound.begin + offset;
      bound.begin = offset;
      bound.allocation = to.allocation();
      std::byte* const address = bound.allocation->data() + bound.begin;
      if (bound.call != nullptr) {
        bound.call->bindings[bound.field] = {address, bound.end - bound.begin};
      } else {
        std::memcpy(bound.node->args() + bound.field, &address, sizeof(address));
      }
    }
    return {};
  });
}

void CpuCommandList::walk(Team& team, int thread, Outcome* outcome) noexcept {
  CpuContext context;
  context.thread = thread;
  context.threads = team.size();
  context.team = &team;
  for (Node* node = first_; node != nullptr; node = node->next) {
    if (node->wait) {
      team.barrier();
      // Every dispatch before this one is done, and later ones have greater indices: all threads decide alike.
      if (failed_.load(std::memory_order_relaxed) < node->index) return;
    }
    context.chunks = &node->chunks;
    node->run(node->args(), context);
    if (outcome != nullptr) {
      ++outcome->dispatches;
      outcome->barriers += node->wait ? 1 : 0;
    }
  }
}

CpuCommandList::Outcome CpuCommandList::run(Team& team) noexcept {
  Outcome outcome;
  if (first_ == nullptr) return outcome;
  struct Job {
    CpuCommandList* list;
    Team* team;
    Outcome* outcome;
  } job{this, &team, &outcome};
  for (Node* node = first_; node != nullptr; node = node->next) node->chunks = 0;
  failed_.store(kNoneFailed, std::memory_order_relaxed);
  team.run(
      [](void* data, int thread) {
        const Job& j = *static_cast<Job*>(data);
        j.list->walk(*j.team, thread, thread == 0 ? j.outcome : nullptr);
      },
      &job);
  const std::uint32_t failed = failed_.load(std::memory_order_relaxed);
  if (failed == kNoneFailed) return outcome;
  for (const auto& call : calls_) {
    if (call->index == failed) outcome.error = call->error->with_context(call->label);
    call->error.reset();
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
