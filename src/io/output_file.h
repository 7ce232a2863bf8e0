#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "mlxn/result.h"

namespace mlxn::io {

/// A file that is either written whole or not at all: the bytes go to a temporary name in the target's folder, which takes
/// the target's name once they are on the disk. Until publish() the temporary file goes away with this object. A target that
/// is a symbolic link stands for the file that it leads to when this object is made. The permissions of a file that is
/// replaced are those of the new one.
/// Errors: io with errno as native code (no folder, no permission, no space, a target that is not a regular file).
class OutputFile {
 public:
  [[nodiscard]] static Result<OutputFile> create(const std::filesystem::path& target) noexcept;
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  /// Appends. After an error the file can only be thrown away.
  [[nodiscard]] Result<void> write(std::span<const std::byte> bytes) noexcept;
  /// Waits until the bytes are on the disk and closes the file. Nothing can be written afterwards.
  [[nodiscard]] Result<void> flush() noexcept;
  /// Moves a file that has the name to a temporary one. From here to settle(), the end of this object takes the published file
  /// away and gives the old one its name back.
  [[nodiscard]] Result<void> move_old_aside() noexcept;
  /// Gives the flushed file its name. A file that had it before is replaced.
  [[nodiscard]] Result<void> publish() noexcept;
  /// Removes the file that was moved aside: the published one stays.
  void settle() noexcept;

  [[nodiscard]] const std::string& target() const noexcept { return target_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

 private:
  OutputFile() = default;
  void discard() noexcept;

  std::string target_;     // as it was given, for messages
  std::string path_;       // where links lead
  std::string temporary_;  // empty once there is no such file
  std::string old_;        // the file that was moved aside; empty if there is none
  bool revocable_ = false, published_ = false;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

/// Bytes that an ordinary user can still write into the folder of `target`. Errors: io.
[[nodiscard]] Result<std::uint64_t> free_bytes_beside(const std::filesystem::path& target) noexcept;

}  // namespace mlxn::io
