#include "backends/simt/queue.h"

#include <cstring>

#include "base/error.h"
#include "simt/emulator.h"
#include "simt/kernel_entry.h"

namespace mlxn::simt {
namespace {

/// The kernel's host code; null if the build has none of that name.
const KernelEntry* resolve(const gpu::KernelInfo& kernel) noexcept {
  if (const void* known = kernel.simt_function.load(std::memory_order_acquire)) return static_cast<const KernelEntry*>(known);
  int count = 0;
  const KernelTable* const* const tables = kernel_tables(count);
  for (const KernelTable* table : std::span(tables, static_cast<std::size_t>(count))) {
    for (const KernelEntry& entry : std::span(table->entries, static_cast<std::size_t>(table->count))) {
      if (entry.name != kernel.name) continue;
      kernel.simt_function.store(&entry, std::memory_order_release);
      return &entry;
    }
  }
  return nullptr;
}

}  // namespace

Result<void> SimtCommandList::dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord&) {
  return make_error(ErrorCode::unsupported, "{}: the emulator runs built-in kernels only", dispatch.kernel->info().name);
}

Result<std::span<std::byte>> SimtCommandList::stage(std::uint64_t bytes) {
  return std::span(staged_.emplace_back(bytes));
}

Result<std::shared_ptr<Allocation>> SimtCommandList::allocate_scratch(std::uint64_t bytes) {
  MLXN_TRY(auto allocation, device()->allocate(bytes, {.zero = false}));
  allocation->scratch = true;
  return allocation;
}

Result<std::shared_ptr<Allocation>> SimtCommandList::allocate_counters(std::uint64_t bytes) {
  MLXN_TRY(auto allocation, device()->allocate(bytes, {.zero = true}));
  allocation->scratch = true;
  return allocation;
}

Result<void> SimtCommandList::launch(SimtDevice& device, const Node& node) const {
  const KernelEntry* const entry = resolve(*node.kernel);
  if (entry == nullptr) return make_error(ErrorCode::internal, "{}: not among the emulator's kernels", node.kernel->name);
  std::array<Range, kMaxBindings + 1> ranges;
  std::size_t count = 0;
  for (const Touch& touch : touches(node)) {
    std::byte* begin = nullptr;
    std::memcpy(&begin, node.args + touch.field, sizeof(begin));
    ranges[count] = {begin, begin + touch.bytes, touch.access, static_cast<int>(count)};
    ++count;
  }
  if (const auto& block = parameter_block()) {
    ranges[count] = {block->data(), block->data() + block->bytes(), Access::in, static_cast<int>(count)};
    ++count;
  }
  LaunchInfo info;
  info.kernel = node.kernel->name;
  info.run = entry->run;
  info.grid = node.grid;
  info.threads = node.kernel->threads;
  info.shared_bytes = node.kernel->shared_bytes;
  info.args = node.args;
  info.args_bytes = node.args_bytes;
  info.ranges = std::span(ranges).first(count);
  return simt::run(info, device.next_seed());
}

Result<void> SimtCommandList::run(SimtDevice& device, std::uint64_t& executed) {
  if (const auto& block = parameter_block()) {
    std::memcpy(block->data(), parameter_values().data(), parameter_values().size_bytes());
  }
  for (const Node& node : nodes()) {
    switch (node.kind) {
      case Kind::kernel: MLXN_CHECK(launch(device, node)); break;
      case Kind::user_kernel: return make_error(ErrorCode::internal, "{}: a kernel of the user", node.kernel->name);
      case Kind::fill: {
        FillArgs fill;
        std::memcpy(&fill, node.args, sizeof(fill));
        std::memset(fill.to, static_cast<int>(fill.value), fill.bytes);
        break;
      }
      case Kind::copy:
      case Kind::upload:
      case Kind::download: {
        CopyArgs copy;
        std::memcpy(&copy, node.args, sizeof(copy));
        for (std::uint64_t row = 0; row < copy.rows; ++row) {
          std::memcpy(copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.row_bytes);
        }
        break;
      }
    }
    ++executed;
  }
  return {};
}

Result<std::shared_ptr<SubmissionImpl>> SimtQueue::submit(std::shared_ptr<CommandList>&& list, bool) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<SubmissionImpl>> {
    if (auto error = take_sticky_error()) return *error;
    auto submission = std::make_shared<SubmissionImpl>(*list, shared_from_this());
    submission->dispatches_encoded = list->recording_graph ? 0 : list->dispatches();
    submission->begin = std::chrono::steady_clock::now();
    Result<void> result;
    {
      const std::lock_guard lock(device_.mutex);
      result = static_cast<SimtCommandList&>(*list).run(device_, submission->dispatches_executed);
    }
    submission->end = std::chrono::steady_clock::now();
    list.reset();
    for (AtomicCounters* sum : {&device_.counters, &counters}) {
      sum->submissions.fetch_add(1, std::memory_order_relaxed);
      sum->dispatches_executed.fetch_add(submission->dispatches_executed, std::memory_order_relaxed);
    }
    if (!result) submission->error = submission->label_.empty() ? result.error() : result.error().with_context(submission->label_);
    submission->status.store(result ? Submission::Status::completed : Submission::Status::failed, std::memory_order_release);
    return submission;
  });
}

Result<void> SimtQueue::wait(SubmissionImpl&, std::optional<std::chrono::steady_clock::time_point>) {
  count_sync(device_);
  counters.syncs.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Result<void> SimtQueue::add_callback(const std::shared_ptr<SubmissionImpl>& submission, std::function<void(const Result<void>&)> done) {
  return mlxn::detail::guarded([&]() -> Result<void> {
    done(submission->result());
    return {};
  });
}

Result<void> SimtQueue::drain() { return {}; }

}  // namespace mlxn::simt
