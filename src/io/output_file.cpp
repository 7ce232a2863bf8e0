#include "io/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/checked.h"
#include "io/os_error.h"

namespace mlxn::io {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& target) {
  return target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
}

/// The folder's entry of the new name has to reach the disk too. A file system that cannot do that is no error.
void flush_folder(const std::filesystem::path& path) noexcept {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

}  // namespace

Result<OutputFile> OutputFile::create(const std::filesystem::path& target) noexcept {
  return detail::guarded([&]() -> Result<OutputFile> {
    static std::atomic<unsigned> counter = 0;
    OutputFile file;
    file.target_ = target.string();
    struct stat status = {};
    if (::stat(file.target_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
      if (S_ISDIR(status.st_mode)) return os_error(file.target_, "cannot write", EISDIR);
      return make_error(ErrorCode::io, "{}: not a regular file", file.target_);
    }
    // Some other process may have taken a name, or left it behind.
    for (int attempt = 0; attempt < 100; ++attempt) {
      std::string name = fmt::format("{}.{}-{}.tmp", file.target_, ::getpid(), counter.fetch_add(1));
      file.descriptor_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (file.descriptor_ >= 0) {
        file.temporary_ = std::move(name);
        return file;
      }
      if (errno != EEXIST) break;
    }
    return os_error(file.target_, "cannot write", errno);
  });
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      size_(other.size_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  if (this == &other) return *this;
  discard();
  target_ = std::move(other.target_);
  temporary_ = std::exchange(other.temporary_, {});
  size_ = other.size_;
  descriptor_ = std::exchange(other.descriptor_, -1);
  return *this;
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

Result<void> OutputFile::write(std::span<const std::byte> bytes) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (descriptor_ < 0) return make_error(ErrorCode::wrong_state, "{}: the file is closed", target_);
    while (!bytes.empty()) {
      // One call transfers at most 2 GiB on Linux and fails above that on macOS.
      const ssize_t done = ::write(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
      if (done < 0) {
        if (errno == EINTR) continue;
        return os_error(target_, fmt::format("cannot write after {} bytes", size_), errno);
      }
      size_ += static_cast<std::uint64_t>(done);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
    return {};
  });
}

Result<void> OutputFile::flush() noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (descriptor_ < 0) return make_error(ErrorCode::wrong_state, "{}: the file is closed", target_);
    if (::fsync(descriptor_) != 0) return os_error(target_, "cannot write", errno);
    if (::close(std::exchange(descriptor_, -1)) != 0) return os_error(target_, "cannot write", errno);
    return {};
  });
}

Result<void> OutputFile::publish() noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (descriptor_ >= 0 || temporary_.empty()) {
      return make_error(ErrorCode::wrong_state, "{}: the file is not flushed, or published before", target_);
    }
    const std::filesystem::path folder = folder_of(target_);  // made here: nothing may fail after the file has its name
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) return os_error(target_, "cannot write", errno);
    temporary_.clear();
    flush_folder(folder);
    return {};
  });
}

Result<std::uint64_t> free_bytes_beside(const std::filesystem::path& target) noexcept {
  return detail::guarded([&]() -> Result<std::uint64_t> {
    struct statvfs status = {};
    const std::filesystem::path folder = folder_of(target);
    if (::statvfs(folder.c_str(), &status) != 0) return os_error(target.string(), "cannot write", errno);
    return checked_mul(status.f_bavail, status.f_frsize).value_or(UINT64_MAX);
  });
}

}  // namespace mlxn::io
