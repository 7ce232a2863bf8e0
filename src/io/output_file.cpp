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

/// Follows links from `target` to what is no link, there or not.
Result<std::filesystem::path> resolve(const std::filesystem::path& target) {
  constexpr int kMaxLinks = 40;  // as many as Linux follows
  std::filesystem::path path = target;
  for (int i = 0; i < kMaxLinks; ++i) {
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(path, error);
    if (error) return path;  // no link, or nothing there
    path = next.is_absolute() ? next : folder_of(path) / next;
  }
  return os_error(target.string(), "cannot write", ELOOP);
}

/// A name of its own beside `path`, as short as any: the target's may be as long as the file system allows.
std::string temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter = 0;
  return (folder_of(path) / fmt::format(".mlxn-{}-{}.tmp", ::getpid(), counter.fetch_add(1))).string();
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
    OutputFile file;
    file.target_ = target.string();
    MLXN_TRY(const std::filesystem::path path, resolve(target));
    file.path_ = path.string();
    struct stat status = {};
    const bool exists = ::lstat(file.path_.c_str(), &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
      if (S_ISDIR(status.st_mode)) return os_error(file.target_, "cannot write", EISDIR);
      return make_error(ErrorCode::io, "{}: not a regular file", file.target_);
    }
    const mode_t mode = exists ? status.st_mode & 0777 : 0666;
    int error = EEXIST;
    // Some other process may have taken a name, or left it behind.
    for (int attempt = 0; error == EEXIST && attempt < 100; ++attempt) {
      std::string name = temporary_name(path);
      file.descriptor_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
      error = file.descriptor_ < 0 ? errno : 0;
      if (error == 0) file.temporary_ = std::move(name);
    }
    if (error != 0) return os_error(file.target_, "cannot write", error);
    if (exists) {
      // What the process masks in new files, this one had before.
      struct stat made = {};
      if (::fstat(file.descriptor_, &made) != 0 || ((made.st_mode & 0777) != mode && ::fchmod(file.descriptor_, mode) != 0)) {
        error = errno;
        return os_error(file.target_, "cannot keep the permissions", error);
      }
    }
    return file;
  });
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : target_(std::move(other.target_)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      old_(std::exchange(other.old_, {})),
      revocable_(std::exchange(other.revocable_, false)),
      published_(std::exchange(other.published_, false)),
      size_(other.size_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  if (this == &other) return *this;
  discard();
  target_ = std::move(other.target_);
  path_ = std::move(other.path_);
  temporary_ = std::exchange(other.temporary_, {});
  old_ = std::exchange(other.old_, {});
  revocable_ = std::exchange(other.revocable_, false);
  published_ = std::exchange(other.published_, false);
  size_ = other.size_;
  descriptor_ = std::exchange(other.descriptor_, -1);
  return *this;
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
  if (!revocable_) return;
  if (published_) ::unlink(path_.c_str());
  if (!old_.empty()) ::rename(old_.c_str(), path_.c_str());
  revocable_ = false;
}

Result<void> OutputFile::write(std::span<const std::byte> bytes) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (descriptor_ < 0) return make_error(ErrorCode::wrong_state, "{}: the file is closed", target_);
    while (!bytes.empty()) {
      // One call transfers at most 2 GiB on Linux and fails above that on macOS.
      const ssize_t done = ::write(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
      if (done < 0) {
        const int error = errno;
        if (error == EINTR) continue;
        return os_error(target_, fmt::format("cannot write after {} bytes", size_), error);
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

Result<void> OutputFile::move_old_aside() noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (descriptor_ >= 0 || temporary_.empty()) {
      return make_error(ErrorCode::wrong_state, "{}: the file is not flushed, or published before", target_);
    }
    struct stat status = {};
    const bool exists = ::lstat(path_.c_str(), &status) == 0;
    if (exists && S_ISDIR(status.st_mode)) return os_error(target_, "cannot write", EISDIR);
    if (exists) {
      std::string name = temporary_name(path_);
      while (::lstat(name.c_str(), &status) == 0) name = temporary_name(path_);
      if (::rename(path_.c_str(), name.c_str()) != 0) {
        const int error = errno;
        return os_error(target_, "cannot replace", error);
      }
      old_ = std::move(name);
    }
    revocable_ = true;
    return {};
  });
}

void OutputFile::settle() noexcept {
  if (!old_.empty()) ::unlink(old_.c_str());
  old_.clear();
  revocable_ = false;
}

Result<void> OutputFile::publish() noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (descriptor_ >= 0 || temporary_.empty()) {
      return make_error(ErrorCode::wrong_state, "{}: the file is not flushed, or published before", target_);
    }
    const std::filesystem::path folder = folder_of(path_);  // made here: nothing may fail after the file has its name
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      const int error = errno;
      return os_error(target_, "cannot write", error);
    }
    temporary_.clear();
    published_ = true;
    flush_folder(folder);
    return {};
  });
}

Result<std::uint64_t> free_bytes_beside(const std::filesystem::path& target) noexcept {
  return detail::guarded([&]() -> Result<std::uint64_t> {
    struct statvfs status = {};
    MLXN_TRY(const std::filesystem::path path, resolve(target));
    const std::filesystem::path folder = folder_of(path);
    if (::statvfs(folder.c_str(), &status) != 0) {
      const int error = errno;
      return os_error(target.string(), "cannot write", error);
    }
    // Their types differ from system to system.
    return checked_mul(static_cast<std::uint64_t>(status.f_bavail), static_cast<std::uint64_t>(status.f_frsize)).value_or(UINT64_MAX);
  });
}

}  // namespace mlxn::io
