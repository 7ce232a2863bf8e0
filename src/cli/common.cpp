#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "cli/commands.h"
#include "formats/printable.h"

namespace mlxn::cli {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

}  // namespace

void keep_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) != -1 || errno != EBADF) continue;
    // The lowest free number is this one. It is opened the wrong way round, so that reading or writing it is still an error.
    const int opened = ::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened != descriptor && opened >= 0) ::close(opened);
  }
}

bool print(std::string_view text) {
  static bool said = false;
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return true;
  const int code = errno;
  // Who reads a pipe and has seen enough, as head does, wants no more of it.
  if (code != EPIPE && !said) complain(fmt::format("cannot write to stdout: {}", std::strerror(code)));
  said = true;
  return false;
}

void complain(std::string_view text) {
  // One line that cannot control a terminal, whatever a file put into the text.
  show(fmt::format("mlxn: {}\n", printable(text)));
}

void show(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

int fail(const Error& error) {
  complain(error.rule().empty() ? fmt::format("{}", error.message()) : fmt::format("{} ({})", error.message(), error.rule()));
  switch (error.code()) {
    case ErrorCode::invalid_argument: return kBadUsage;
    case ErrorCode::cancelled: return kInterrupted;
    default: return kFailed;
  }
}

bool shows_progress() { return isatty(STDERR_FILENO) != 0; }

Result<std::string> read_text(const std::string& path) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return make_error(ErrorCode::io, "cannot read '{}': {}", path, std::strerror(errno)).with_native_code(errno);
  }
  std::string text;
  std::array<char, 65536> part{};
  errno = 0;
  for (std::size_t got = 0; (got = std::fread(part.data(), 1, part.size(), file)) > 0;) {
    text.append(part.data(), got);
    if (text.size() > kMaxTextBytes) break;
  }
  const bool bad = std::ferror(file) != 0;
  const int code = errno;
  if (file != stdin) std::fclose(file);
  if (bad) return make_error(ErrorCode::io, "cannot read '{}': {}", path, std::strerror(code)).with_native_code(code);
  if (text.size() > kMaxTextBytes) {
    return make_error(ErrorCode::limit_exceeded, "'{}' is longer than {} bytes", path, kMaxTextBytes);
  }
  return text;
}

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string progress_bar(std::uint64_t done, std::uint64_t all) {
  constexpr int kWidth = 30;
  const double part = all == 0 ? 1 : static_cast<double>(done) / static_cast<double>(all);
  const auto filled = static_cast<int>(part * kWidth);
  return fmt::format("[{:=<{}}{:{}}] {} of {}", "", filled, "", kWidth - filled, human_bytes(done), human_bytes(all));
}

}  // namespace mlxn::cli
