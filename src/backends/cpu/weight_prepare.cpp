#include "backends/cpu/weight_prepare.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "backends/cpu/launch.h"
#include "backends/cpu/weight_rows16.h"
#include "base/error.h"

namespace mlxn::cpu {
namespace {

/// How a thread tells the caller which bytes have been read; the caller's function may throw.
struct Progress {
  Progress(const std::function<void(std::uint64_t, std::uint64_t)>& function, std::uint64_t offset) : consumed(function), first(offset) {}
  Progress(Progress&& other) noexcept : consumed(other.consumed), first(other.first) {}  // while nothing runs
  const std::function<void(std::uint64_t, std::uint64_t)>& consumed;
  const std::uint64_t first;  // byte of all sources at which this one begins
  std::atomic<bool> threw{false};
};

struct PrepareArgs {
  In<std::uint8_t> source;
  Out<std::uint8_t> prepared;
  Progress* progress;
  std::int64_t n, k;
  DType type;
};

/// Groups of rows a thread takes at a time: a few pages, so that they can be dropped behind it.
constexpr std::uint64_t kGroupsPerStep = 4;

void prepare_rows16(const PrepareArgs& args, const CpuContext& context) {
  const auto row_bytes = static_cast<std::uint64_t>(rows16::row_bytes(rows16::format(args.type), args.k));
  const auto n = static_cast<std::uint64_t>(args.n);
  const std::uint64_t groups = (n + rows16::kRows - 1) / rows16::kRows;
  context.for_chunks(groups, kGroupsPerStep, [&](std::uint64_t begin, std::uint64_t end) {
    rows16::pack_groups(args.type, args.source.ptr, args.n, args.k, static_cast<std::int64_t>(begin),
                        static_cast<std::int64_t>(end), args.prepared.ptr);
    if (!args.progress->consumed) return;
    const std::uint64_t first = begin * rows16::kRows * row_bytes;
    const std::uint64_t last = std::min(end * rows16::kRows, n) * row_bytes;
    try {
      args.progress->consumed(args.progress->first + first, last - first);
    } catch (...) {
      args.progress->threw = true;
    }
  });
}

}  // namespace

std::uint64_t prepared_weight_bytes(DType type, std::int64_t n, std::int64_t k) noexcept {
  return rows16::matrix_bytes(rows16::format(type), n, k);
}

Result<Tensor> prepare_weight(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options) {
  const DType type = sources.front().dtype();
  const rows16::Format format = rows16::format(type);
  const std::int64_t k = sources.front().dim(1);
  std::int64_t n = 0;
  for (const Tensor& source : sources) n += source.dim(0);
  AllocateOptions allocate;
  allocate.zero = false;
  MLXN_TRY(const Tensor storage, device.allocate(DType::u8, {rows16::matrix_bytes(format, n, k)}, allocate));
  MLXN_TRY(CommandEncoder encoder, device.encoder());
  std::vector<Progress> progress;
  progress.reserve(sources.size());
  std::int64_t rows = 0;
  std::uint64_t consumed = 0;
  for (const Tensor& source : sources) {
    const std::int64_t begin = rows16::matrix_bytes(format, rows, k);
    rows += source.dim(0);
    MLXN_TRY(const Tensor part, storage.slice(0, begin, rows16::matrix_bytes(format, rows, k)));
    progress.emplace_back(options.consumed, consumed);
    Launch<PrepareArgs> launch;
    launch.bind(launch.args.source, source);
    launch.bind(launch.args.prepared, part);
    launch.args.progress = &progress.back();
    launch.args.n = source.dim(0);
    launch.args.k = k;
    launch.args.type = type;
    MLXN_CHECK(encode(encoder, kernel<&prepare_rows16>("prepare_rows16"), launch));
    consumed += source.bytes();
  }
  MLXN_CHECK(encoder.commit_and_wait());
  for (const Progress& p : progress) {
    if (p.threw) return make_error(ErrorCode::invalid_argument, "prepare: the function `consumed` threw");
  }
  return storage;
}

}  // namespace mlxn::cpu
