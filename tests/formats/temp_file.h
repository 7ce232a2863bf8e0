#pragma once

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

namespace mlxn::testing {

/// A file with the given bytes that goes away with this object.
class TempFile {
 public:
  explicit TempFile(std::span<const std::byte> bytes) {
    static std::atomic<int> counter = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("mlxn_test_" + std::to_string(::getpid()) + "_" + std::to_string(++counter));
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  ~TempFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace mlxn::testing
