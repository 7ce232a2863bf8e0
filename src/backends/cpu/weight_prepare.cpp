#include <algorithm>
#include <atomic>

#include "backends/cpu/launch.h"
#include "backends/cpu/weight_rows16.h"
#include "backends/weight_impl.h"
#include "base/error.h"
#include "base/system_memory.h"
#include "mlxn/weight.h"

namespace mlxn {
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

/// Nothing if the memory is not there.
Result<Tensor> prepare_on_cpu(const Device& device, const Tensor& source, const PrepareOptions& options) {
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
  MLXN_CHECK(cpu::encode(encoder, cpu::kernel<&prepare_rows16>("prepare_rows16"), launch));
  MLXN_CHECK(encoder.commit_and_wait());
  if (progress.threw) return make_error(ErrorCode::invalid_argument, "prepare: the function `consumed` threw");
  return storage;
}

Result<Weight> prepare(const Device& device, const Tensor& source, const PrepareOptions& options) {
  if (!device.defined()) return make_error(ErrorCode::invalid_argument, "prepare: device is an empty handle");
  if (!source.defined()) return make_error(ErrorCode::invalid_argument, "prepare: source is an empty tensor");
  if (!is_weight_type(source.dtype())) {
    return make_error(is_block(source.dtype()) ? ErrorCode::unsupported : ErrorCode::bad_dtype,
                      "prepare: source is {}, which has no kernels as a weight", to_string(source.dtype()));
  }
  if (source.rank() != 2) {
    return make_error(ErrorCode::bad_shape, "prepare: source has {} axes, wanted [n, k]", source.rank());
  }
  if (source.elems() == 0) {
    return make_error(ErrorCode::bad_shape, "prepare: source is [{}, {}], wanted at least one element", source.dim(0),
                      source.dim(1));
  }
  if (!source.is_contiguous()) return make_error(ErrorCode::bad_shape, "prepare: source has gaps between its rows, wanted none");
  if (!(source.device() == device)) return make_error(ErrorCode::wrong_device, "prepare: source lives on another device");

  auto weight = std::make_shared<WeightImpl>();
  weight->dtype = source.dtype();
  weight->n = source.dim(0);
  weight->k = source.dim(1);
  weight->storage = source;
  const bool fits = options.mode == PrepareMode::on ||
                    static_cast<double>(rows16::matrix_bytes(rows16::format(weight->dtype), weight->n, weight->k)) <=
                        0.7 * static_cast<double>(system_memory().available_bytes);
  if (options.mode != PrepareMode::off && fits) {
    Result<Tensor> storage = prepare_on_cpu(device, source, options);
    if (storage) {
      weight->storage = *std::move(storage);
      weight->prepared = true;
    } else if (options.mode == PrepareMode::on || storage.error().code() != ErrorCode::out_of_memory) {
      return storage.error();
    }
  }
  return Weight(std::move(weight));
}

}  // namespace

Result<Weight> Weight::prepare(const Device& device, const Tensor& source, const PrepareOptions& options) {
  return detail::guarded([&] { return mlxn::prepare(device, source, options); });
}

DType Weight::dtype() const noexcept { return impl_ ? impl_->dtype : DType::f32; }
std::int64_t Weight::n() const noexcept { return impl_ ? impl_->n : 0; }
std::int64_t Weight::k() const noexcept { return impl_ ? impl_->k : 0; }
bool Weight::prepared() const noexcept { return impl_ && impl_->prepared; }
std::uint64_t Weight::bytes() const noexcept { return impl_ ? impl_->storage.bytes() : 0; }

}  // namespace mlxn
