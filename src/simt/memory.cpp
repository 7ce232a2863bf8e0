#include "simt/memory.h"

#include <link.h>

#include <algorithm>

#include "base/error.h"

namespace mlxn::simt {
namespace {

constexpr std::size_t kMaxSegments = 256;  // what Memory::recent can name

std::uintptr_t address_of(const void* pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }

/// What is mapped for reading alone, or is so after the dynamic linker has done its work: constants (and code).
int add_constants(dl_phdr_info* object, std::size_t, void* list) {
  auto& constants = *static_cast<std::vector<Extent>*>(list);
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const auto& header = object->dlpi_phdr[i];
    if ((header.p_type == PT_LOAD && (header.p_flags & PF_W) == 0) || header.p_type == PT_GNU_RELRO) {
      constants.push_back({object->dlpi_addr + header.p_vaddr, header.p_memsz});
    }
  }
  return 0;
}

}  // namespace

constinit thread_local Memory* memory_of_kernel = nullptr;

Result<void> Memory::map(std::span<const Range> launch_ranges) {
  ranges = launch_ranges;
  recent = {};
  segment_list.assign(1, {});
  std::vector<std::uintptr_t> borders;
  for (const Range& range : ranges) {
    if (range.begin == range.end) continue;
    borders.push_back(address_of(range.begin));
    borders.push_back(address_of(range.end));
  }
  std::ranges::sort(borders);
  borders.erase(std::ranges::unique(borders).begin(), borders.end());
  std::size_t words = 0;
  for (std::size_t i = 1; i < borders.size(); ++i) {
    Segment segment{{borders[i - 1], borders[i] - borders[i - 1]}, false, false, {}};
    bool covered = false;
    for (const Range& range : ranges) {
      if (address_of(range.begin) > borders[i - 1] || address_of(range.end) < borders[i]) continue;
      covered = true;
      segment.readable |= range.access != Access::out;
      segment.writable |= range.access != Access::in;
    }
    if (!covered) continue;
    if (segment_list.size() == kMaxSegments) return make_error(ErrorCode::limit_exceeded, "simt: {} ranges of memory", ranges.size());
    if (segment.writable) words += (segment.extent.begin % 4 + segment.extent.bytes + 3) / 4;
    segment_list.push_back(segment);
  }
  if (!global_shadow_memory.reserve(words)) {
    return make_error(ErrorCode::out_of_memory, "simt: no address space to watch {} bytes that a launch may write", words * 4);
  }
  std::size_t word = 0;
  for (Segment& segment : segment_list) {
    if (!segment.writable) continue;
    segment.shadow = global_shadow_memory.at(word);
    word += (segment.extent.begin % 4 + segment.extent.bytes + 3) / 4;
  }
  segments = segment_list.data();
  return {};
}

const Segment* Memory::find(std::uintptr_t address) noexcept {
  const auto after = std::upper_bound(segment_list.begin() + 1, segment_list.end(), address,
                                      [](std::uintptr_t a, const Segment& segment) { return a < segment.extent.begin; });
  const Segment& segment = *(after - 1);
  if (!segment.extent.holds(address)) return nullptr;
  recent[recent_slot(address)] = static_cast<std::uint8_t>(&segment - segments);
  return &segment;
}

bool Memory::is_constant(std::uintptr_t address, std::size_t bytes) noexcept {
  if (constants.holds(address, bytes)) return true;
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (const Extent& extent : all_constants) {
      if (!extent.holds(address, bytes)) continue;
      constants = extent;
      return true;
    }
    // Objects may have been loaded since.
    if (attempt != 0) break;
    try {
      all_constants.clear();
      dl_iterate_phdr(add_constants, &all_constants);
    } catch (...) {
      break;
    }
  }
  return false;
}

AccessFault Memory::check(std::uintptr_t address, std::size_t bytes, Operation operation) noexcept {
  using Kind = AccessFault::Kind;
  AccessFault fault{Kind::none, operation, address, bytes, address, {}, 1};
  if (bytes == 0 || stack.holds(address, bytes)) return fault;
  const auto watched = [&](const Shadow& shadow, std::size_t offset, std::size_t count, Stamp horizon, Stamp start, bool readable) {
    const auto touched = [&] {
      switch (operation) {
        case Operation::load: return touch<Operation::load>(shadow, offset, count, now, horizon, start, readable);
        case Operation::store: return touch<Operation::store>(shadow, offset, count, now, horizon, start, readable);
        case Operation::atomic: break;
      }
      return touch<Operation::atomic>(shadow, offset, count, now, horizon, start, readable);
    };
    const Finding finding = touched();
    if (finding.trouble == Trouble::none) return true;
    fault.kind = finding.trouble == Trouble::race ? Kind::race : Kind::unwritten;
    fault.at += finding.offset - offset;
    fault.conflict = finding.conflict;
    return false;
  };
  if (shared.holds(address, bytes)) {
    (void)watched(shared_shadow, address - shared.begin, bytes, now.barrier, now.group, false);
    return fault;
  }
  const Segment* segment = find(address);
  if (segment == nullptr) {
    if (args.holds(address, bytes) || is_constant(address, bytes)) {
      if (operation != Operation::load) fault.kind = Kind::read_only;
    } else {
      fault.kind = Kind::out_of_range;
    }
    return fault;
  }
  if (!segment->extent.holds(address, bytes) && std::ranges::none_of(ranges, [&](const Range& range) {
        return Extent{address_of(range.begin), static_cast<std::size_t>(range.end - range.begin)}.holds(address, bytes);
      })) {
    fault.kind = Kind::out_of_range;
    return fault;
  }
  // One range holds it all; where others begin or end in the middle it is in several segments.
  for (std::size_t left = bytes; left != 0; segment = find(fault.at)) {
    const std::size_t offset = fault.at - segment->extent.begin;
    const std::size_t count = std::min(left, segment->extent.bytes - offset);
    if (!segment->writable && operation != Operation::load) {
      fault.kind = Kind::read_only;
      return fault;
    }
    if (segment->writable &&
        !watched(segment->shadow, segment->extent.begin % 4 + offset, count, now.launch, now.launch, segment->readable)) {
      return fault;
    }
    fault.at += count;
    left -= count;
  }
  fault.at = address;
  return fault;
}

}  // namespace mlxn::simt
