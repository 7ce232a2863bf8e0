#include "simt/shadow.h"

#include <sys/mman.h>

namespace mlxn::simt {

Conflict conflict(const Record& record, Operation operation, const Now& now, Stamp horizon) noexcept {
  if (meets_store(record, operation, now, horizon)) {
    const bool atomic = (record.writer & Record::kAtomic) != 0;
    return {true, atomic ? Operation::atomic : Operation::store, record.writer & std::uint32_t{Record::kThread}, record.stored};
  }
  if (operation == Operation::load || !meets_load(record, now, horizon)) return {};
  const bool first = concurrent(record.loaded, record.reader, now, horizon);
  return {true, Operation::load, first ? record.reader : record.other_reader, record.loaded};
}

void note_atomic(Record& record, const Now& now, Stamp horizon) noexcept {
  const auto thread = static_cast<std::uint16_t>(now.thread);
  auto writer = static_cast<std::uint16_t>(thread | Record::kAtomic);
  if (record.stored >= horizon && (record.writer & Record::kAtomic) != 0) {
    // Of another group: nothing but atomic operations may touch it any more.
    if (record.stored < now.group) return;
    if (record.stored >= now.barrier) {
      const bool same_simd = (record.writer & Record::kThread) / 32 == thread / 32;
      if (!same_simd || (record.writer & Record::kSimdGroups) != 0) {
        writer |= Record::kSimdGroups;
      } else if (record.stored == now.moment && ((record.writer & Record::kThread) != thread || (record.writer & Record::kLanes) != 0)) {
        writer |= Record::kLanes;
      }
    }
  }
  record.stored = now.moment;
  record.writer = writer;
}

ShadowMemory::~ShadowMemory() { clear(); }

void ShadowMemory::clear() noexcept {
  if (records_ != nullptr) munmap(records_, words_ * 5 * sizeof(Record));
  records_ = nullptr;
  words_ = 0;
}

bool ShadowMemory::reserve(std::size_t words) noexcept {
  if (words <= words_) return true;
  clear();
  if (words > SIZE_MAX / (5 * sizeof(Record))) return false;
  void* const memory =
      mmap(nullptr, words * 5 * sizeof(Record), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  records_ = static_cast<Record*>(memory);
  words_ = words;
  return true;
}

}  // namespace mlxn::simt
