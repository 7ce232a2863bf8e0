#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxn::simt {

/// Moments of a host thread's launches, ever growing. Every SIMD-group has a clock: its simd_barrier makes it tick, and a
/// barrier of the group sets all clocks of the group to one later than any of them.
using Stamp = std::uint32_t;

/// Who runs, and when.
struct Now {
  std::uint32_t thread = 0;  ///< in its group
  Stamp moment = 0;          ///< the clock of its SIMD-group
  Stamp barrier = 0;         ///< the group's last barrier, or its start
  Stamp group = 0;           ///< the group's start
  Stamp launch = 0;          ///< the launch's start
};

enum class Operation : std::uint8_t { load, store, atomic };

/// The last accesses to a byte, or to the four bytes of a word if they are the same for all of them. A stamp older than the
/// memory's horizon stands for none: what came before a launch, or, in shared memory, before a barrier, is in order.
///
/// That is enough to find every race of a launch, whatever the order in which the emulator happens to run the threads:
///  - accesses are in order if a barrier of the group, or a simd_barrier of their common SIMD-group, lies between them
///  - of stores only the last is needed: one that it was not in order with has been reported
///  - of loads since then: `reader`, the last, and if a load of another thread is not in order with it also `other_reader`,
///    of another SIMD-group if there is one
///  - nothing is in order with another group of the launch, so its loads stay noted until a store meets them
struct Record {
  Stamp stored, loaded;
  std::uint16_t writer;  ///< thread, and the flags below
  std::uint16_t reader, other_reader;
  std::uint16_t state;  ///< of a word: bits 0 to 3 say which bytes have been stored to, kSplit

  static constexpr std::uint16_t kAtomic = 0x8000;     ///< by atomic operations,
  static constexpr std::uint16_t kLanes = 0x4000;      ///< of several threads, all of the writer's SIMD-group
  static constexpr std::uint16_t kSimdGroups = 0x2000;  ///< of several SIMD-groups
  static constexpr std::uint16_t kThread = 0x3ff;
  static constexpr std::uint16_t kNobody = 0xffff;
  static constexpr std::uint16_t kSplit = 0x10;  ///< the word's bytes have records of their own
};
static_assert(sizeof(Record) == 16);

/// Records of a piece of memory. `words` has one for every four bytes, from an address that is a multiple of four on; `bytes`
/// one for every byte, used where threads share a word.
struct Shadow {
  Record* words = nullptr;
  Record* bytes = nullptr;
};

/// What an access has met.
struct Conflict {
  bool found = false;
  Operation operation = Operation::load;  ///< of the earlier access
  std::uint32_t thread = 0;
  Stamp stamp = 0;
};

/// Whether nothing orders an earlier access before one now. `horizon`: see Record.
[[nodiscard]] inline bool concurrent(Stamp stamp, std::uint32_t thread, const Now& now, Stamp horizon) noexcept {
  if (stamp < horizon) return false;
  if (stamp < now.barrier) return stamp < now.group;
  return thread != now.thread && (thread / 32 != now.thread / 32 || stamp == now.moment);
}

[[nodiscard]] inline bool meets_store(const Record& record, Operation operation, const Now& now, Stamp horizon) noexcept {
  if (record.stored < horizon) return false;
  if (operation == Operation::atomic && (record.writer & Record::kAtomic) != 0) return false;
  if ((record.writer & (Record::kLanes | Record::kSimdGroups)) == 0 || record.stored < now.barrier) {
    return concurrent(record.stored, record.writer & Record::kThread, now, horizon);
  }
  const bool same_simd = (record.writer & Record::kSimdGroups) == 0 && (record.writer & Record::kThread) / 32 == now.thread / 32;
  return !same_simd || record.stored == now.moment;
}
[[nodiscard]] inline bool meets_load(const Record& record, const Now& now, Stamp horizon) noexcept {
  if (record.loaded < horizon) return false;
  return concurrent(record.loaded, record.reader, now, horizon) ||
         (record.other_reader != Record::kNobody && concurrent(record.loaded, record.other_reader, now, horizon));
}

/// Which access it is that this one meets; none if it meets none.
[[nodiscard]] Conflict conflict(const Record& record, Operation operation, const Now& now, Stamp horizon) noexcept;

inline void note_load(Record& record, const Now& now, Stamp horizon) noexcept {
  if (record.loaded >= horizon) {
    if (record.loaded < now.group) return;
    if (record.loaded >= now.barrier) {
      const bool many = record.other_reader != Record::kNobody && record.other_reader / 32 != record.reader / 32;
      if (many) return;
      if (record.reader / 32 != now.thread / 32) {
        record.other_reader = static_cast<std::uint16_t>(now.thread);
        return;
      }
      if (record.loaded == now.moment) {
        if (record.reader != now.thread) record.other_reader = static_cast<std::uint16_t>(now.thread);
        return;
      }
    }
  }
  record.loaded = now.moment;
  record.reader = static_cast<std::uint16_t>(now.thread);
  record.other_reader = Record::kNobody;
}

void note_atomic(Record& record, const Now& now, Stamp horizon) noexcept;

/// Notes an access; false if it meets one that it is not in order with.
template <Operation operation>
[[nodiscard]] inline bool note(Record& record, const Now& now, Stamp horizon) noexcept {
  if (meets_store(record, operation, now, horizon)) return false;
  if constexpr (operation == Operation::load) {
    note_load(record, now, horizon);
  } else {
    if (meets_load(record, now, horizon)) return false;
    if constexpr (operation == Operation::store) {
      record.stored = now.moment;
      record.writer = static_cast<std::uint16_t>(now.thread);
    } else {
      note_atomic(record, now, horizon);
    }
  }
  return true;
}

/// What is wrong with an access, and at which of its bytes.
enum class Trouble : std::uint8_t { none, unwritten, race };
struct Finding {
  Trouble trouble = Trouble::none;
  std::size_t offset = 0;
  Conflict conflict;
};

/// Checks and notes an access to `bytes` bytes at `offset`. Bytes that nothing has stored to since `start` count as unwritten
/// unless `readable`.
template <Operation operation>
[[nodiscard]] inline Finding touch(const Shadow& shadow, std::size_t offset, std::size_t bytes, const Now& now, Stamp horizon,
                                   Stamp start, bool readable) noexcept {
  const std::size_t end = offset + bytes;
  while (offset < end) {
    Record& word = shadow.words[offset / 4];
    const auto first = static_cast<unsigned>(offset % 4);
    const auto count = static_cast<unsigned>(end - offset < 4 - first ? end - offset : 4 - first);
    const unsigned mask = ((1u << count) - 1) << first;
    const unsigned written = word.stored >= start ? word.state & 0xfu : 0u;
    if (operation != Operation::store && !readable && (written & mask) != mask) {
      unsigned byte = first;
      while ((written >> byte & 1) != 0) ++byte;
      return {Trouble::unwritten, offset + byte - first, {}};
    }
    bool split = (word.state & Record::kSplit) != 0 && (word.stored >= horizon || word.loaded >= horizon);
    if (mask == 0xf && !split) {
      if (!note<operation>(word, now, horizon)) return {Trouble::race, offset, conflict(word, operation, now, horizon)};
    } else {
      Record* const records = shadow.bytes + offset / 4 * 4;
      if (!split) {
        for (unsigned i = 0; i < 4; ++i) records[i] = word;
        split = true;
      }
      for (unsigned i = first; i < first + count; ++i) {
        if (!note<operation>(records[i], now, horizon)) {
          return {Trouble::race, offset + i - first, conflict(records[i], operation, now, horizon)};
        }
      }
      // The word's own stamps are those of any of its bytes.
      if (operation != Operation::store) word.loaded = now.moment;
      if (operation != Operation::load) word.stored = now.moment;
    }
    const unsigned stored = operation == Operation::load ? word.stored >= start ? word.state & 0xfu : 0u : written | mask;
    word.state = static_cast<std::uint16_t>(stored | (split ? Record::kSplit : 0u));
    offset += count;
  }
  return {};
}

/// Pages of records that are zero, thus of no access, until somebody writes them.
class ShadowMemory {
 public:
  ShadowMemory() = default;
  ~ShadowMemory();
  ShadowMemory(const ShadowMemory&) = delete;
  ShadowMemory& operator=(const ShadowMemory&) = delete;

  /// Room for the records of so many words, those of earlier launches still in it. False without memory.
  [[nodiscard]] bool reserve(std::size_t words) noexcept;
  /// Gives the memory back, and with it all that was noted.
  void clear() noexcept;
  [[nodiscard]] std::size_t words() const noexcept { return words_; }
  [[nodiscard]] Shadow at(std::size_t word) const noexcept { return {records_ + word, records_ + words_ + word * 4}; }

 private:
  Record* records_ = nullptr;
  std::size_t words_ = 0;
};

}  // namespace mlxn::simt
