#include "backends/cpu/weight_prepare.h"

#include <algorithm>
#include <atomic>

#include "backends/cpu/launch.h"
#include "backends/cpu/weight_rows16.h"
#include "base/error.h"

namespace mlxn::cpu {
namespace {

/// How a thread tells the caller which bytes have been read; the caller's function may throw.
struct Progress {
  const std::function<void(std::uint64_t, std::uint64_t)>& consumed;
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
      args.progress->consumed(first, last - first);
    } catch (...) {
      args.progress->threw = true;
    }
  });
}

}  // namespace

std::uint64_t prepared_weight_bytes(DType type, std::int64_t n, std::int64_t k) noexcept {
  return rows16::matrix_bytes(rows16::format(type), n, k);
}

Result<Tensor> prepare_weight(const Device& device, const Tensor& source, const PrepareOptions& options) {
  const rows16::Format format = rows16::format(source.dtype());
  const std::int64_t n = source.dim(0), k = source.dim(1);
  AllocateOptions allocate;
  allocate.zero = false;
  MLXN_TRY(const Tensor storage, device.allocate(DType::u8, {rows16::matrix_bytes(format, n, k)}, allocate));
  MLXN_TRY(CommandEncoder encoder, device.encoder());
  Progress progress{options.consumed};
  Launch<PrepareArgs> launch;
  launch.bind(launch.args.source, source);
  launch.bind(launch.args.prepared, storage);
  launch.args.progress = &progress;
  launch.args.n = n;
  launch.args.k = k;
  launch.args.type = source.dtype();
  MLXN_CHECK(encode(encoder, kernel<&prepare_rows16>("prepare_rows16"), launch));
  MLXN_CHECK(encoder.commit_and_wait());
  if (progress.threw) return make_error(ErrorCode::invalid_argument, "prepare: the function `consumed` threw");
  return storage;
}

}  // namespace mlxn::cpu
