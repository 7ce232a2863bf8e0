#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "mlxn/result.h"

namespace mlxn::io {

/// The bytes of a regular file, read-only: mapped, or copied into memory. The size is taken once, at open.
///
/// Mapped bytes belong to the file: another process may change them, and touching a page that it cut off
/// raises SIGBUS. Errors: io with errno as native code (missing, unreadable, a directory, not a regular
/// file), corrupt_file (empty), out_of_memory.
class MappedFile {
 public:
  enum class Mode : std::uint8_t { map, copy };

  [[nodiscard]] static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path,
                                                                      Mode mode = Mode::map) noexcept;
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// Aligned to a page at least, whatever the mode.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] Mode mode() const noexcept { return mode_; }
  /// An io error if the mapped file has become shorter than bytes().
  [[nodiscard]] Result<void> check_size() const noexcept;

  // Advice on a range; what lies outside the file is ignored, and a copy ignores all of it.
  /// Gives back the physical pages that lie wholly inside the range.
  void drop_pages(std::uint64_t offset, std::uint64_t length) const noexcept;
  /// Asks for read-ahead of every page that the range touches.
  void will_need(std::uint64_t offset, std::uint64_t length) const noexcept;
  /// Tells that the range will be read front to back.
  void sequential(std::uint64_t offset, std::uint64_t length) const noexcept;

 private:
  MappedFile() = default;
  void advise_outer(std::uint64_t offset, std::uint64_t length, int advice) const noexcept;

  std::string path_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int descriptor_ = -1;  // kept by a mapping only, for check_size()
  Mode mode_ = Mode::map;
};

}  // namespace mlxn::io
