#include "backends/command_list.h"

#include "backends/device_impl.h"

namespace mlxn {
namespace {
constexpr std::size_t kMaxGroupRanges = 96;  // a longer group costs more to check than its join
}

bool HazardTracker::conflicts(const LaunchRecord& record) const noexcept {
  if (ranges_.size() > kMaxGroupRanges) return true;
  for (int i = 0; i < record.range_count; ++i) {
    const BoundRange& next = record.ranges[static_cast<std::size_t>(i)];
    const bool writes = next.access != Access::in;
    for (const Range& earlier : ranges_) {
      if ((writes || earlier.write) && earlier.allocation == next.allocation->get() && next.begin < earlier.end &&
          earlier.begin < next.end) {
        return true;
      }
    }
  }
  return false;
}

void HazardTracker::add(const LaunchRecord& record) {
  for (int i = 0; i < record.range_count; ++i) {
    const BoundRange& range = record.ranges[static_cast<std::size_t>(i)];
    ranges_.push_back({range.allocation->get(), range.begin, range.end, range.access != Access::in});
  }
}

CommandList::CommandList(std::shared_ptr<DeviceImpl> device, const EncoderOptions& options)
    : device_(std::move(device)), mode_(options.hazards), label_(options.label) {}

CommandList::~CommandList() = default;

void CommandList::barrier() noexcept { pending_barrier_ = true; }

bool CommandList::track(const LaunchRecord& record) {
  for (int i = 0; i < record.range_count; ++i) retain(*record.ranges[static_cast<std::size_t>(i)].allocation);
  bool wait = pending_barrier_;
  if (mode_ == HazardMode::serial) wait = true;
  if (mode_ == HazardMode::automatic) {
    wait = wait || hazards_.conflicts(record);
    if (wait) hazards_.start_group();
    hazards_.add(record);
  }
  pending_barrier_ = false;
  count_dispatches_encoded(*device_, 1);
  return wait;
}

void CommandList::retain(const std::shared_ptr<Allocation>& allocation) {
  // Neighbouring dispatches bind the same few allocations, so a short look back finds most repeats.
  const std::size_t look_back = retained_.size() < 16 ? retained_.size() : 16;
  for (std::size_t i = retained_.size() - look_back; i < retained_.size(); ++i) {
    if (retained_[i] == allocation) return;
  }
  retained_.push_back(allocation);
}

void CommandList::begin_use() const noexcept {
  for (const auto& allocation : retained_) allocation->begin_use();
}

void CommandList::end_use() const noexcept {
  for (const auto& allocation : retained_) allocation->end_use();
}

}  // namespace mlxn
