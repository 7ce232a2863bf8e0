#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "io/os_error.h"

namespace mlxn::io {
namespace {

std::uint64_t page_bytes() noexcept {
  const long size = ::sysconf(_SC_PAGESIZE);
  return size > 0 ? static_cast<std::uint64_t>(size) : 4096;
}

/// Closes a descriptor that open() does not hand on.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

Result<void> read_all(int descriptor, const std::string& path, std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    // One call transfers at most 2 GiB on Linux and fails above that on macOS.
    const std::size_t wanted = std::min<std::size_t>(out.size() - done, std::size_t{1} << 30);
    const ssize_t got = ::pread(descriptor, out.data() + done, wanted, static_cast<off_t>(done));
    if (got < 0) {
      if (errno == EINTR) continue;
      return os_error(path, "cannot read", errno);
    }
    if (got == 0) {
      return make_error(ErrorCode::io, "{}: the file ended at byte {} of {} while it was read", path, done,
                        out.size());
    }
    done += static_cast<std::size_t>(got);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path,
                                                           Mode mode) noexcept {
  return detail::guarded([&]() -> Result<std::shared_ptr<const MappedFile>> {
    const std::shared_ptr<MappedFile> file(new MappedFile);
    file->path_ = path.string();
    file->mode_ = mode;
    // Without O_NONBLOCK a named pipe would block here before it can be refused.
    Descriptor descriptor{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (descriptor.value < 0) return os_error(file->path_, "cannot open", errno);
    struct stat status = {};
    if (::fstat(descriptor.value, &status) != 0) return os_error(file->path_, "cannot look at", errno);
    if (S_ISDIR(status.st_mode)) return os_error(file->path_, "cannot read", EISDIR);
    if (!S_ISREG(status.st_mode)) return make_error(ErrorCode::io, "{}: not a regular file", file->path_);
    if (status.st_size <= 0) return make_error(ErrorCode::corrupt_file, "{}: the file is empty", file->path_);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > std::numeric_limits<std::size_t>::max() / 2) {
      return make_error(ErrorCode::limit_exceeded, "{}: {} bytes exceed the address space", file->path_,
                        size);
    }
    if (mode == Mode::map) {
      void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor.value, 0);
      if (address == MAP_FAILED) return os_error(file->path_, "cannot map", errno);
      file->data_ = static_cast<std::byte*>(address);
      file->size_ = size;
      file->descriptor_ = std::exchange(descriptor.value, -1);
    } else {
      const std::uint64_t page = page_bytes();
      const std::optional<std::uint64_t> rounded = checked_round_up(size, page);
      if (!rounded) return Error(ErrorCode::out_of_memory);
      file->data_ = static_cast<std::byte*>(std::aligned_alloc(page, *rounded));
      if (file->data_ == nullptr) {
        return make_error(ErrorCode::out_of_memory, "{}: no memory for a copy of {} bytes", file->path_,
                          size);
      }
      file->size_ = size;
      MLXN_CHECK(read_all(descriptor.value, file->path_, {file->data_, file->size_}));
    }
    return std::shared_ptr<const MappedFile>(file);
  });
}

MappedFile::~MappedFile() {
  if (mode_ == Mode::copy) {
    std::free(data_);
  } else if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<void> MappedFile::check_size() const noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (mode_ == Mode::copy) return {};
    struct stat status = {};
    if (::fstat(descriptor_, &status) != 0) return os_error(path_, "cannot look at", errno);
    if (static_cast<std::uint64_t>(std::max<off_t>(status.st_size, 0)) < size_) {
      return make_error(ErrorCode::io, "{}: the file shrank from {} to {} bytes while it was open", path_,
                        size_, status.st_size);
    }
    return {};
  });
}

void MappedFile::drop_pages(std::uint64_t offset, std::uint64_t length) const noexcept {
  if (mode_ == Mode::copy || offset >= size_) return;
  const std::uint64_t page = page_bytes();
  const std::uint64_t end = offset + std::min<std::uint64_t>(length, size_ - offset);
  const std::uint64_t first = ceil_div(offset, page) * page;
  // The file's last page belongs to nobody else, even if the file ends within it.
  const std::uint64_t last = end == size_ ? ceil_div(end, page) * page : end / page * page;
  if (first < last) ::madvise(data_ + first, last - first, MADV_DONTNEED);
}

void MappedFile::will_need(std::uint64_t offset, std::uint64_t length) const noexcept {
  advise_outer(offset, length, MADV_WILLNEED);
}

void MappedFile::sequential(std::uint64_t offset, std::uint64_t length) const noexcept {
  advise_outer(offset, length, MADV_SEQUENTIAL);
}

void MappedFile::advise_outer(std::uint64_t offset, std::uint64_t length, int advice) const noexcept {
  if (mode_ == Mode::copy || offset >= size_ || length == 0) return;
  const std::uint64_t end = offset + std::min<std::uint64_t>(length, size_ - offset);
  const std::uint64_t first = offset / page_bytes() * page_bytes();
  ::madvise(data_ + first, end - first, advice);
}

}  // namespace mlxn::io
