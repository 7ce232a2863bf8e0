#include "backends/command_list.h"

#include <cstring>

#include "backends/device_impl.h"
#include "backends/gpu/tensor_map.h"
#include "base/error.h"

namespace mlxn {
namespace {
constexpr std::uint64_t kArenaBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostScratchBytes = std::uint64_t{1} << 48;  // beyond any machine's memory, and sums of them stay in 64 bits
}  // namespace

bool HazardTracker::conflicts(const LaunchRecord& record, bool scratch_only) const noexcept {
  if (size_ == 0) return false;
  if (size_ > kMaxGroupRanges) return true;
  for (int i = 0; i < record.range_count; ++i) {
    const BoundRange& next = record.ranges[static_cast<std::size_t>(i)];
    const Allocation& allocation = **next.allocation;
    if (scratch_only && !allocation.scratch) continue;
    const std::byte* const begin = allocation.data() + next.begin;
    const std::byte* const end = allocation.data() + next.end;
    const bool writes = next.access != Access::in;
    for (std::size_t j = 0; j < size_; ++j) {
      const Range& earlier = ranges_[j];
      if ((writes || earlier.write) && begin < earlier.end && earlier.begin < end) return true;
    }
  }
  return false;
}

void HazardTracker::add(const LaunchRecord& record, bool scratch_only) noexcept {
  for (int i = 0; i < record.range_count; ++i) {
    const BoundRange& range = record.ranges[static_cast<std::size_t>(i)];
    const Allocation& allocation = **range.allocation;
    if (scratch_only && !allocation.scratch) continue;
    ranges_[size_++] = {allocation.data() + range.begin, allocation.data() + range.end, range.access != Access::in};
  }
}

namespace {
std::uint64_t next_list_id() noexcept {
  static std::atomic<std::uint64_t> count{0};
  return count.fetch_add(1, std::memory_order_relaxed) + 1;
}
}  // namespace

CommandList::CommandList(std::shared_ptr<DeviceImpl> device, const EncoderOptions& options)
    : device_(std::move(device)), mode_(options.hazards), id_(next_list_id()), label_(options.label) {}

CommandList::~CommandList() = default;

void CommandList::barrier() noexcept { pending_barrier_ = true; }

Result<void> CommandList::check_record(std::string_view name, std::size_t args_bytes, const LaunchRecord& record) const {
  if (args_bytes > kMaxArgsBytes || record.range_count > kMaxBindings || record.patch_count > kMaxScalarPatches) {
    return make_error(ErrorCode::internal, "{}: {} argument bytes, {} bindings, {} parameters; at most {}, {}, {}", name, args_bytes,
                      record.range_count, record.patch_count, kMaxArgsBytes, kMaxBindings, kMaxScalarPatches);
  }
  for (int i = 0; i < record.patch_count; ++i) {
    if (static_cast<std::size_t>(record.patches[static_cast<std::size_t>(i)].parameter) >= parameters.size()) {
      return make_error(ErrorCode::wrong_state, "{}: a parameter of another graph", name);
    }
  }
  return {};
}

void CommandList::make_room_for(const LaunchRecord& record) {
  make_room(retained_, kMaxBindings);
  make_room(patches_, static_cast<std::size_t>(record.patch_count));
  if (recording_graph) make_room(bound_, static_cast<std::size_t>(record.range_count));
}

void CommandList::keep(const LaunchRecord& record, std::byte* args, std::span<std::byte>* bindings) noexcept {
  const std::size_t index = dispatches();
  for (int i = 0; i < record.range_count; ++i) {
    const BoundRange& range = record.ranges[static_cast<std::size_t>(i)];
    retain(*range.allocation);
    if (*range.allocation == arena_) arena_bound_ = true;
    if (!recording_graph || (*range.allocation)->scratch) continue;
    const bool callable = bindings != nullptr;
    bound_.push_back({*range.allocation, range.begin, range.end, callable ? nullptr : args + range.field,
                      callable ? bindings + range.field : nullptr, index, range.is_map});
  }
  count_dispatches_encoded(*device_, 1);
  if (queue_counters != nullptr) queue_counters->dispatches_encoded.fetch_add(1, std::memory_order_relaxed);
}

void CommandList::add_patch(const ScalarPatch& patch, std::string_view name, std::byte* field) noexcept {
  patches_.push_back({patch.parameter, patch.size, patch.min, patch.max, field, name});
}

bool CommandList::track(const LaunchRecord& record) noexcept {
  bool wait = pending_barrier_ || mode_ == HazardMode::serial;
  if (mode_ != HazardMode::serial) {
    // The scratch memory of operations is not the caller's to order.
    const bool scratch_only = mode_ == HazardMode::manual;
    wait = wait || hazards_.conflicts(record, scratch_only);
    if (wait) hazards_.start_group();
    hazards_.add(record, scratch_only);
  }
  pending_barrier_ = false;
  return wait;
}

Result<Tensor> CommandList::take_scratch(std::uint64_t bytes, std::uint64_t alignment,
                                         const std::function<Result<std::shared_ptr<Allocation>>(std::uint64_t)>& allocate) {
  if (bytes > kMostScratchBytes) return make_error(ErrorCode::out_of_memory, "scratch: {} bytes wanted", bytes);
  const std::uint64_t wanted = (bytes + alignment - 1) / alignment * alignment;
  const std::uint64_t room = arena_ ? arena_->bytes() : 0;
  // From its start again, unless an operation still holds a piece: besides that there are the handle here and, once a
  // dispatch has bound the arena, the one that keeps it alive.
  const bool may_restart = arena_ && wanted <= room && arena_.use_count() == (arena_bound_ ? 2 : 1);
  if (room - arena_used_ < wanted && may_restart) arena_used_ = 0;
  if (room - arena_used_ < wanted) {
    // Twice the request, so that two dispatches in a row need not share the bytes and can overlap.
    MLXN_TRY(arena_, allocate(std::max(kArenaBytes, wanted * 2)));
    arena_used_ = 0;
    arena_bound_ = false;
  }
  MLXN_TRY(Tensor tensor, Tensor::make(arena_, DType::u8, {static_cast<std::int64_t>(wanted)}, arena_used_));
  arena_used_ += wanted;
  return tensor;
}

Result<void> CommandList::patch(int parameter, std::int64_t value) {
  for (const Patch& patch : patches_) {
    if (patch.parameter != parameter || (value >= patch.min && value <= patch.max)) continue;
    return make_error(ErrorCode::out_of_range, "graph: parameter '{}' is {}, {} takes {} to {}",
                      parameters[static_cast<std::size_t>(parameter)].name, value, patch.name, patch.min, patch.max);
  }
  for (const Patch& patch : patches_) {
    if (patch.parameter != parameter) continue;
    std::memcpy(patch.field, &value, patch.size);  // little-endian: the low bytes of the 64-bit value are the 32-bit one
  }
  return {};
}

Result<void> CommandList::rebind(const Tensor& from, const Tensor& to) {
  const std::byte* const from_begin = device_address(from);
  const std::byte* const to_begin = device_address(to);
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
      return make_error(ErrorCode::aliased, "graph: dispatch {} binds more than the tensor to replace", bound.index);
    }
    if (!is_from(bound) && bound.first() < to_end && to_begin < bound.last()) {
      return make_error(ErrorCode::aliased, "graph: the new buffer overlaps one that dispatch {} binds", bound.index);
    }
  }
  return mlxn::detail::guarded([&]() -> Result<void> {
    std::vector<std::shared_ptr<Allocation>> kept;
    kept.reserve(bound_.size());
    for (const Bound& bound : bound_) kept.push_back(is_from(bound) ? to.allocation() : bound.allocation);
    retain_only(std::move(kept));
    ++rebinds_;
    for (Bound& bound : bound_) {
      if (!is_from(bound)) continue;
      const auto offset = static_cast<std::uint64_t>(bound.first() - from_begin) + to.byte_offset();
      bound.end = bound.end - bound.begin + offset;
      bound.begin = offset;
      bound.allocation = to.allocation();
      std::byte* const address = bound.allocation->data() + bound.begin;
      if (bound.binding != nullptr) {
        *bound.binding = {address, bound.end - bound.begin};
      } else if (bound.is_map) {
        gpu::TensorMap map;  // launch structs do not lie as it is aligned
        std::memcpy(&map, bound.field, sizeof(map));
        MLXN_CHECK(device_->move_tensor_map(map, address));
        std::memcpy(bound.field, &map, sizeof(map));
      } else {
        std::memcpy(bound.field, &address, sizeof(address));
      }
    }
    return {};
  });
}

void CommandList::retain(const std::shared_ptr<Allocation>& allocation) noexcept {
  if (allocation->last_list.load(std::memory_order_relaxed) == id_) return;
  allocation->last_list.store(id_, std::memory_order_relaxed);
  retained_.push_back(allocation);
}

void CommandList::retain_only(std::vector<std::shared_ptr<Allocation>> allocations) {
  for (const auto& kept : retained_) {
    if (kept->scratch) allocations.push_back(kept);
  }
  std::sort(allocations.begin(), allocations.end());
  allocations.erase(std::unique(allocations.begin(), allocations.end()), allocations.end());
  retained_.swap(allocations);
}

bool CommandList::binds(const Allocation& allocation) const noexcept {
  return std::any_of(retained_.begin(), retained_.end(), [&](const auto& kept) { return kept.get() == &allocation; });
}

}  // namespace mlxn
