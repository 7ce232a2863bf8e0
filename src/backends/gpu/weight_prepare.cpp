#include "backends/gpu/weight_prepare.h"

#include <algorithm>

#include "backends/device_impl.h"
#include "base/error.h"
#include "mlxn/encoder.h"
#include "ops/matmul/hopper.h"
#include "ops/prepare_weight/prepare_weight.h"
#include "ops/weight_records/weight_records.h"
#include "quant/records.h"

namespace mlxn::gpu {
namespace {

/// Bytes of the source that are sent at a time; they can be dropped behind it.
constexpr std::uint64_t kPieceBytes = std::uint64_t{8} << 20;

Result<void> tell(const PrepareOptions& options, std::uint64_t offset, std::uint64_t length) {
  if (!options.consumed) return {};
  try {
    options.consumed(offset, length);
  } catch (...) {
    return make_error(ErrorCode::invalid_argument, "prepare: the function `consumed` threw");
  }
  return {};
}

Result<Tensor> allocate(const Device& device, DType type, const Shape& shape) {
  AllocateOptions options;
  options.zero = false;
  return device.allocate(type, shape, options);
}

/// Calls send(begin, end) for pieces of `bytes` bytes that are multiples of `unit`, and says that they have been read.
template <class Send>
Result<void> in_pieces(std::uint64_t bytes, std::uint64_t unit, const PrepareOptions& options, const Send& send) {
  const std::uint64_t piece = std::max(kPieceBytes / unit, std::uint64_t{1}) * unit;
  for (std::uint64_t begin = 0; begin < bytes; begin += piece) {
    const std::uint64_t end = std::min(begin + piece, bytes);
    MLXN_CHECK(send(begin, end));
    MLXN_CHECK(tell(options, begin, end - begin));
  }
  return {};
}

/// The source's bytes as they are.
Result<void> upload_bytes(const Device& device, std::span<const std::byte> from, const Tensor& to, const PrepareOptions& options) {
  return in_pieces(from.size(), 1, options, [&](std::uint64_t begin, std::uint64_t end) -> Result<void> {
    MLXN_TRY(const Tensor part, to.slice(0, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)));
    return device.upload(part, from.subspan(begin, end - begin));
  });
}

}  // namespace

WeightForm prepared_form(const Device& device, DType type) noexcept {
  return device.impl()->is_hopper() ? ops::hopper_form(type) : WeightForm::prepared;
}

std::uint64_t prepared_weight_bytes(WeightForm form, DType type, std::int64_t n, std::int64_t k) noexcept {
  switch (form) {
    case WeightForm::records: return ops::records_bytes(type, n, k);
    case WeightForm::rows: return ops::rows_bytes(type, n, k);
    case WeightForm::raw:
    case WeightForm::prepared: break;
  }
  return ops::prepared_layout(type, n, k).bytes;
}

Result<Tensor> upload_weight(const Device& device, const Tensor& source, const PrepareOptions& options) {
  MLXN_TRY(const auto bytes, source.read<std::byte>());
  MLXN_TRY(Tensor raw, allocate(device, source.dtype(), source.shape()));
  MLXN_TRY(const Tensor view, raw.reinterpret(DType::u8, {static_cast<std::int64_t>(raw.bytes())}));
  MLXN_CHECK(upload_bytes(device, bytes, view, options));
  return raw;
}

namespace {

/// What sources are laid out into.
struct Target {
  WeightForm form;
  DType type;
  std::int64_t n, k;
  Tensor storage;

  /// Source bytes that are laid out as a whole.
  [[nodiscard]] std::uint64_t unit_bytes() const noexcept {
    return form == WeightForm::records ? ops::raw_layout(type, quant::kRecordRows, k).bytes : ops::prepare_unit_bytes(type, k);
  }

  /// Records the laying out of raw bytes, whole units or the source's end, that stand at the offset of the matrix.
  [[nodiscard]] Result<void> encode(CommandEncoder& encoder, const Tensor& raw, std::uint64_t offset) const {
    if (form != WeightForm::records) {
      const auto unit = unit_bytes();
      return ops::encode_prepare_weight(encoder, raw, storage, type, n, k, static_cast<std::int64_t>(offset / unit),
                                        static_cast<std::int64_t>(raw.bytes() / unit));
    }
    const std::uint64_t row_bytes = ops::raw_layout(type, 1, k).bytes;
    const auto first = static_cast<std::int64_t>(offset / row_bytes), rows = static_cast<std::int64_t>(raw.bytes() / row_bytes);
    const quant::GpuWeight view = ops::raw_layout(type, rows, k).view;
    MLXN_CHECK(ops::encode_pack_records(encoder, raw, view, storage, type, k, first, rows));
    return ops::encode_weight_exponents(encoder, raw, view, storage, type, n, k, first, rows);
  }
};

/// One source, whose bytes stand at the offset of the matrix.
Result<void> lay_out(const Device& device, const Tensor& source, const Target& target, std::uint64_t offset, const PrepareOptions& options) {
  if (source.device() == device) {
    MLXN_TRY(const Tensor raw, Tensor::make(source.allocation(), DType::u8, {static_cast<std::int64_t>(source.bytes())}, source.byte_offset()));
    MLXN_TRY(CommandEncoder encoder, device.encoder());
    MLXN_CHECK(target.encode(encoder, raw, offset));
    MLXN_CHECK(encoder.commit_and_wait());
    return tell(options, 0, source.bytes());
  }

  MLXN_TRY(const auto bytes, source.read<std::byte>());
  if (target.form != WeightForm::records && ops::is_prepared_layout(target.type, target.k)) {
    const auto begin = static_cast<std::int64_t>(offset);
    MLXN_TRY(const Tensor rows, target.storage.slice(0, begin, begin + static_cast<std::int64_t>(bytes.size())));
    return upload_bytes(device, bytes, rows, options);
  }
  // Pieces go to the device as they are and are laid out there, one while the host copies the next: an upload is ordered
  // behind the work that was committed before it.
  const std::uint64_t unit = target.unit_bytes();
  const std::uint64_t piece = std::min(std::max(kPieceBytes / unit, std::uint64_t{1}) * unit, std::uint64_t{bytes.size()});
  MLXN_TRY(const Tensor landing, allocate(device, DType::u8, {static_cast<std::int64_t>(piece)}));
  Submission last;
  const auto send = [&](std::uint64_t begin, std::uint64_t end) -> Result<void> {
    MLXN_TRY(const Tensor part, landing.slice(0, 0, static_cast<std::int64_t>(end - begin)));
    MLXN_CHECK(device.upload(part, std::span<const std::byte>(bytes).subspan(begin, end - begin)));
    if (last.defined()) MLXN_CHECK(last.wait());  // which has ended before the upload; whether it did well is known here only
    MLXN_TRY(CommandEncoder encoder, device.encoder());
    MLXN_CHECK(target.encode(encoder, part, offset + begin));
    MLXN_TRY(last, encoder.commit());
    return {};
  };
  MLXN_CHECK(in_pieces(bytes.size(), unit, options, send));
  return last.wait();
}

}  // namespace

Result<Tensor> prepare_weight(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options, WeightForm form) {
  Target target{form, sources.front().dtype(), 0, sources.front().dim(1), {}};
  for (const Tensor& source : sources) target.n += source.dim(0);
  MLXN_CHECK(ops::check_gpu_row("prepare", target.type, target.k));
  MLXN_TRY(target.storage, allocate(device, DType::u8,
                                    {static_cast<std::int64_t>(prepared_weight_bytes(form, target.type, target.n, target.k))}));
  std::uint64_t consumed = 0;
  for (const Tensor& source : sources) {
    PrepareOptions shifted = options;
    if (options.consumed) {
      shifted.consumed = [&](std::uint64_t offset, std::uint64_t length) { options.consumed(consumed + offset, length); };
    }
    MLXN_CHECK(lay_out(device, source, target, consumed, shifted));
    consumed += source.bytes();
  }
  if (form == WeightForm::rows && target.type == DType::bf16) {
    MLXN_TRY(CommandEncoder encoder, device.encoder());
    MLXN_CHECK(ops::encode_weight_exponents(encoder, target.storage, ops::prepared_layout(target.type, target.n, target.k).view,
                                            target.storage, target.type, target.n, target.k, 0, target.n));
    MLXN_CHECK(encoder.commit_and_wait());
  }
  return target.storage;
}

}  // namespace mlxn::gpu
