#include "mlxn/weight.h"

#include "backends/cpu/weight_prepare.h"
#include "backends/device_impl.h"
#include "backends/gpu/weight_prepare.h"
#include "backends/weight_impl.h"
#include "base/check_value.h"
#include "base/system_memory.h"

namespace mlxn {
namespace {

/// Of the memory that is available, preparing by itself takes at most this share.
constexpr double kPrepareShare = 0.7;

Result<void> check_source(const Device& device, const Tensor& source) {
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
  if (source.device() == device) return {};
  if (!device.impl()->is_gpu()) return make_error(ErrorCode::wrong_device, "prepare: source lives on another device");
  if (source.unsafe_data() == nullptr) {
    return make_error(ErrorCode::wrong_device, "prepare: source lives on another device, in memory that the CPU does not see");
  }
  return {};
}

/// Whether preparing is wanted, or fits if nobody says.
bool prepares(const Device& device, const Tensor& source, PrepareMode mode) {
  if (mode != PrepareMode::automatic) return mode == PrepareMode::on;
  const std::int64_t n = source.dim(0), k = source.dim(1);
  if (!device.impl()->is_gpu()) {
    return static_cast<double>(cpu::prepared_weight_bytes(source.dtype(), n, k)) <=
           kPrepareShare * static_cast<double>(system_memory().available_bytes);
  }
  // Bytes that have to come to the device take their room there in either layout.
  return !(source.device() == device) || static_cast<double>(gpu::prepared_weight_bytes(gpu::prepared_form(device, source.dtype()), source.dtype(), n, k)) <=
                                             kPrepareShare * static_cast<double>(device.free_bytes());
}

/// Lays the sources out and says how; the weight stays as it is if that fails.
Result<void> lay_out(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options, WeightImpl& weight) {
  if (device.impl()->is_gpu()) {
    const WeightForm form = gpu::prepared_form(device, sources.front().dtype());
    MLXN_TRY(weight.storage, gpu::prepare_weight(device, sources, options, form));
    weight.form = form;
    return {};
  }
  MLXN_TRY(weight.storage, cpu::prepare_weight(device, sources, options));
  weight.form = WeightForm::prepared;
  return {};
}

Result<Weight> prepare(const Device& device, const Tensor& source, const PrepareOptions& options) {
  MLXN_CHECK(check_enum("prepare", "mode", options.mode, PrepareMode::off));
  MLXN_CHECK(check_source(device, source));
  const bool is_here = source.device() == device;
  auto weight = std::make_shared<WeightImpl>();
  weight->dtype = source.dtype();
  weight->n = source.dim(0);
  weight->k = source.dim(1);
  if (prepares(device, source, options.mode)) {
    const Result<void> laid_out = lay_out(device, {&source, 1}, options, *weight);
    if (laid_out) return Weight(std::move(weight));
    const bool may_stay_raw = options.mode == PrepareMode::automatic && is_here;
    if (!may_stay_raw || laid_out.error().code() != ErrorCode::out_of_memory) return laid_out.error();
  }
  if (is_here) {
    weight->storage = source;
  } else {
    MLXN_TRY(weight->storage, gpu::upload_weight(device, source, options));
  }
  return Weight(std::move(weight));
}

Result<Weight> prepare_stacked(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options) {
  MLXN_CHECK(check_enum("prepare_stacked", "mode", options.mode, PrepareMode::off));
  if (sources.empty()) return make_error(ErrorCode::invalid_argument, "prepare_stacked: no sources");
  if (options.mode == PrepareMode::off) {
    return make_error(ErrorCode::invalid_argument, "prepare_stacked: mode is off, and raw blocks stay where they are");
  }
  auto weight = std::make_shared<WeightImpl>();
  for (const Tensor& source : sources) {
    MLXN_CHECK(check_source(device, source));
    const Tensor& first = sources.front();
    if (source.dtype() != first.dtype()) {
      return make_error(ErrorCode::bad_dtype, "prepare_stacked: a source is {}, the first is {}", to_string(source.dtype()),
                        to_string(first.dtype()));
    }
    if (source.dim(1) != first.dim(1)) {
      return make_error(ErrorCode::bad_shape, "prepare_stacked: a source is [{}, {}], the first has {} columns", source.dim(0),
                        source.dim(1), first.dim(1));
    }
    if (!(source.device() == first.device())) {
      return make_error(ErrorCode::wrong_device, "prepare_stacked: the sources live on different devices");
    }
    if (weight->n % Weight::kStackRows != 0) {
      return make_error(ErrorCode::bad_shape, "prepare_stacked: sources before the last have {} rows, wanted multiples of {} each",
                        weight->n, Weight::kStackRows);
    }
    weight->n += source.dim(0);
  }
  weight->dtype = sources.front().dtype();
  weight->k = sources.front().dim(1);
  MLXN_CHECK(lay_out(device, sources, options, *weight));
  return Weight(std::move(weight));
}

}  // namespace

Result<Weight> Weight::prepare(const Device& device, const Tensor& source, const PrepareOptions& options) {
  return detail::guarded([&] { return mlxn::prepare(device, source, options); });
}

Result<Weight> Weight::prepare_stacked(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options) {
  return detail::guarded([&] { return mlxn::prepare_stacked(device, sources, options); });
}

DType Weight::dtype() const noexcept { return impl_ ? impl_->dtype : DType::f32; }
std::int64_t Weight::n() const noexcept { return impl_ ? impl_->n : 0; }
std::int64_t Weight::k() const noexcept { return impl_ ? impl_->k : 0; }
bool Weight::prepared() const noexcept { return impl_ && impl_->prepared(); }
std::uint64_t Weight::bytes() const noexcept { return impl_ ? impl_->storage.bytes() : 0; }

}  // namespace mlxn
