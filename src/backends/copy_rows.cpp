#include "backends/copy_rows.h"

#include "base/error.h"

namespace mlxn {
namespace {

/// A tensor as evenly spaced rows of contiguous bytes.
struct Rows {
  std::uint64_t count, bytes, pitch;
};
/// With rows of `inner` trailing axes; nothing if the axes before them are not evenly spaced.
std::optional<Rows> rows_of(const Tensor& tensor, int inner) noexcept {
  const DTypeInfo& type = info(tensor.dtype());
  const auto to_bytes = [&](std::int64_t elems) { return static_cast<std::uint64_t>(elems) / type.block_elems * type.block_bytes; };
  std::int64_t row_elems = 1, count = 1, pitch = 0;
  const int rank = tensor.rank();
  for (int axis = rank - 1; axis >= 0; --axis) {
    const std::int64_t size = tensor.dim(axis), stride = tensor.stride(axis);
    if (axis >= rank - inner) {
      if (size != 1 && stride != row_elems) return std::nullopt;
      row_elems *= size;
    } else if (size != 1) {
      if (count == 1) {
        pitch = stride;
      } else if (stride != pitch * count) {
        return std::nullopt;
      }
      count *= size;
    }
  }
  return Rows{static_cast<std::uint64_t>(count), to_bytes(row_elems), to_bytes(pitch)};
}

}  // namespace

Result<CopyRows> copy_rows_of(const Tensor& to, const Tensor& from) {
  if (from.is_contiguous() && to.is_contiguous()) return CopyRows{1, from.bytes(), 0, 0};
  for (int inner = from.rank(); inner > 0; --inner) {
    const std::optional<Rows> source = rows_of(from, inner), target = rows_of(to, inner);
    if (source && target) return CopyRows{source->count, source->bytes, target->pitch, source->pitch};
  }
  return make_error(ErrorCode::bad_shape, "copy: the rows of one tensor have gaps or are not evenly spaced");
}

}  // namespace mlxn
