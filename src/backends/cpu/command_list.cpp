#include "backends/cpu/command_list.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "backends/copy_rows.h"
#include "backends/cpu/device.h"
#include "base/error.h"
#include "ops/check.h"

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
  MLXN_CHECK(check_record(name, args_bytes, record));
  return mlxn::detail::guarded([&]() -> Result<void> {
    // All that can fail comes first: a dispatch is recorded as a whole or not at all.
    make_room_for(record);
    Node* node = make_node(args_bytes);
    if (node == nullptr) return make_error(ErrorCode::out_of_memory, "{}: no memory to record it", name);
    node->run = entry;
    node->name = name;
    node->index = static_cast<std::uint32_t>(dispatches_);
    node->wait = track(record) && first_ != nullptr;
    std::memcpy(node->args(), args, args_bytes);
    keep(record, node->args(), call == nullptr ? nullptr : call->bindings.data());
    for (int i = 0; i < record.patch_count; ++i) {
      const ScalarPatch& patch = record.patches[static_cast<std::size_t>(i)];
      add_patch(patch, name, node->args() + patch.field);
    }
    (first_ == nullptr ? first_ : last_->next) = node;
    last_ = node;
    ++dispatches_;
    barriers_ += node->wait ? 1 : 0;
    return {};
  });
}

Result<Tensor> CpuCommandList::scratch(std::uint64_t bytes) {
  return take_scratch(bytes, 64, [this](std::uint64_t wanted) { return cpu().allocate_scratch(wanted); });
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

Result<void> CpuCommandList::download(std::span<std::byte> to, const Tensor& from) {
  const Shape shape = {static_cast<std::int64_t>(to.size())};
  MLXN_TRY(const Tensor bytes, from.reinterpret(DType::u8, shape));
  MLXN_TRY(const Tensor host, Device(device_).import_memory(to.data(), to.size(), nullptr, DType::u8, shape));
  MLXN_CHECK(ops::check_no_overlap("download", "to", host, "from", from));
  return copy(host, bytes);
}

Result<void> CpuCommandList::copy(const Tensor& to, const Tensor& from) {
  MLXN_TRY(const CopyRows rows, copy_rows_of(to, from));
  Launch<CopyArgs> launch;
  launch.bind(launch.args.from, from);
  launch.bind(launch.args.to, to);
  launch.args.rows = rows.rows;
  launch.args.row_bytes = rows.row_bytes;
  launch.args.from_pitch = rows.from_pitch;
  launch.args.to_pitch = rows.to_pitch;
  return encode(kCopy.name, kCopy.run, &launch.args, sizeof(CopyArgs), launch.record);
}

Result<void> CpuCommandList::fill(const Tensor& to, std::byte value) {
  Launch<FillArgs> launch;
  launch.bind(launch.args.to, to);
  launch.args.bytes = to.bytes();
  launch.args.value = std::to_integer<std::uint32_t>(value);
  return encode(kFill.name, kFill.run, &launch.args, sizeof(FillArgs), launch.record);
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

namespace {
/// A GPU's list where an operation has no kernel for it.
Result<void> check_cpu(std::string_view name, const CommandEncoder& encoder) {
  if (!encoder.list()->device()->is_gpu()) return {};
  return make_error(ErrorCode::unsupported, "{}: no variant for {}", name, encoder.list()->device()->capabilities().backend);
}
}  // namespace

int threads(const CommandEncoder& encoder) noexcept { return encoder.list()->device()->capabilities().threads; }

Result<Tensor> scratch(CommandEncoder& encoder, std::uint64_t bytes) {
  MLXN_CHECK(check_cpu("scratch", encoder));
  return static_cast<CpuCommandList*>(encoder.list())->scratch(bytes);
}

Result<void> encode_erased(CommandEncoder& encoder, std::string_view name, ErasedKernel run, const void* args,
                           std::size_t args_bytes, const LaunchRecord& record) {
  MLXN_CHECK(check_cpu(name, encoder));
  return static_cast<CpuCommandList*>(encoder.list())->encode(name, run, args, args_bytes, record);
}

}  // namespace mlxn::cpu
