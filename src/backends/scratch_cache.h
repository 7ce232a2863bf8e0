#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace mlxn {

/// Free blocks of the memory that command lists work in, kept for the next list. Thread-safe.
class ScratchCache {
 public:
  struct Block {
    void* data = nullptr;
    std::uint64_t bytes = 0;
  };
  /// Throws std::bad_alloc; nothing later does.
  ScratchCache() { free_.reserve(kMostBlocks); }

  /// The smallest free block that holds the request and wastes no more than three quarters of itself.
  [[nodiscard]] std::optional<Block> take(std::uint64_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->bytes >= bytes && it->bytes / 4 <= bytes && (best == free_.end() || it->bytes < best->bytes)) best = it;
    }
    if (best == free_.end()) return std::nullopt;
    const Block block = *best;
    free_.erase(best);
    return block;
  }
  /// Whether the cache keeps the block.
  [[nodiscard]] bool keep(Block block) noexcept {
    const std::lock_guard lock(mutex_);
    if (free_.size() == kMostBlocks) return false;
    free_.push_back(block);
    return true;
  }
  /// Any of the free blocks, to be given back to the system.
  [[nodiscard]] std::optional<Block> pop() noexcept {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::nullopt;
    const Block block = free_.back();
    free_.pop_back();
    return block;
  }

 private:
  static constexpr std::size_t kMostBlocks = 16;
  std::mutex mutex_;
  std::vector<Block> free_;  // never grows beyond the room it got at the start
};

}  // namespace mlxn
