#include "backends/gpu/weight_prepare.h"

#include <algorithm>

#include "base/error.h"
#include "mlxn/encoder.h"
#include "ops/prepare_weight/prepare_weight.h"

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

std::uint64_t prepared_weight_bytes(DType type, std::int64_t n, std::int64_t k) noexcept {
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

/// One source of a matrix [n, k]: its rows from `first` on.
Result<void> prepare_rows(const Device& device, const Tensor& source, const Tensor& prepared, std::int64_t n, std::int64_t first,
                          const PrepareOptions& options) {
  const DType type = source.dtype();
  const std::int64_t k = source.dim(1);
  const auto unit = ops::prepare_unit_bytes(type, k);
  const auto units_of = [&](std::uint64_t bytes) { return static_cast<std::int64_t>(bytes / unit); };
  const std::int64_t first_unit = units_of(source.bytes()) / source.dim(0) * first;

  if (source.device() == device) {
    MLXN_TRY(const Tensor raw, Tensor::make(source.allocation(), DType::u8, {static_cast<std::int64_t>(source.bytes())}, source.byte_offset()));
    MLXN_TRY(CommandEncoder encoder, device.encoder());
    MLXN_CHECK(ops::encode_prepare_weight(encoder, raw, prepared, type, n, k, first_unit, units_of(source.bytes())));
    MLXN_CHECK(encoder.commit_and_wait());
    return tell(options, 0, source.bytes());
  }

  MLXN_TRY(const auto bytes, source.read<std::byte>());
  if (ops::is_prepared_layout(type, k)) {
    const std::int64_t begin = first_unit * static_cast<std::int64_t>(unit);
    MLXN_TRY(const Tensor rows, prepared.slice(0, begin, begin + static_cast<std::int64_t>(bytes.size())));
    return upload_bytes(device, bytes, rows, options);
  }
  // Pieces go to the device as they are and are taken apart there, one while the host copies the next: an upload is ordered
  // behind the work that was committed before it.
  const std::uint64_t piece = std::min(std::max(kPieceBytes / unit, std::uint64_t{1}) * unit, std::uint64_t{bytes.size()});
  MLXN_TRY(const Tensor landing, allocate(device, DType::u8, {static_cast<std::int64_t>(piece)}));
  Submission last;
  const auto send = [&](std::uint64_t begin, std::uint64_t end) -> Result<void> {
    MLXN_TRY(const Tensor part, landing.slice(0, 0, static_cast<std::int64_t>(end - begin)));
    MLXN_CHECK(device.upload(part, std::span<const std::byte>(bytes).subspan(begin, end - begin)));
    if (last.defined()) MLXN_CHECK(last.wait());  // which has ended before the upload; whether it did well is known here only
    MLXN_TRY(CommandEncoder encoder, device.encoder());
    MLXN_CHECK(ops::encode_prepare_weight(encoder, part, prepared, type, n, k, first_unit + units_of(begin), units_of(end - begin)));
    MLXN_TRY(last, encoder.commit());
    return {};
  };
  MLXN_CHECK(in_pieces(bytes.size(), unit, options, send));
  return last.wait();
}

}  // namespace

Result<Tensor> prepare_weight(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options) {
  const DType type = sources.front().dtype();
  const std::int64_t k = sources.front().dim(1);
  std::int64_t n = 0;
  for (const Tensor& source : sources) n += source.dim(0);
  MLXN_TRY(Tensor prepared, allocate(device, DType::u8, {static_cast<std::int64_t>(prepared_weight_bytes(type, n, k))}));
  std::int64_t first = 0;
  std::uint64_t consumed = 0;
  for (const Tensor& source : sources) {
    PrepareOptions shifted = options;
    if (options.consumed) {
      shifted.consumed = [&](std::uint64_t offset, std::uint64_t length) { options.consumed(consumed + offset, length); };
    }
    MLXN_CHECK(prepare_rows(device, source, prepared, n, first, shifted));
    first += source.dim(0);
    consumed += source.bytes();
  }
  return prepared;
}

}  // namespace mlxn::gpu
