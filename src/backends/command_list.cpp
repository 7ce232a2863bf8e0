#include "backends/command_list.h"

#include "backends/device_impl.h"

namespace mlxn {

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

bool CommandList::track(const LaunchRecord& record) noexcept {
  for (int i = 0; i < record.range_count; ++i) retain(*record.ranges[static_cast<std::size_t>(i)].allocation);
  bool wait = pending_barrier_ || mode_ == HazardMode::serial;
  if (mode_ != HazardMode::serial) {
    // The scratch memory of operations is not the caller's to order.
    const bool scratch_only = mode_ == HazardMode::manual;
    wait = wait || hazards_.conflicts(record, scratch_only);
    if (wait) hazards_.start_group();
    hazards_.add(record, scratch_only);
  }
  pending_barrier_ = false;
  count_dispatches_encoded(*device_, 1);
  if (queue_counters != nullptr) queue_counters->dispatches_encoded.fetch_add(1, std::memory_order_relaxed);
  return wait;
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
