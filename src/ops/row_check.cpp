#include "ops/row_check.h"

namespace mlxn::ops {

Result<void> check_rows(std::string_view op, std::string_view name, const Tensor& tensor) {
  if (tensor.rank() < 1 || tensor.rank() > 3) {
    return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted one to three axes", op, name, to_string(tensor.shape()));
  }
  if (tensor.dim(-1) == 0) {
    return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted a last axis that is not empty", op, name,
                      to_string(tensor.shape()));
  }
  return check_last_contiguous(op, name, tensor);
}

Result<void> check_rows_apart(std::string_view op, std::string_view name, const Tensor& tensor) {
  // Axes in the order of their strides: each must step over all that the smaller ones span.
  std::int64_t span = tensor.dim(-1);
  int first = tensor.rank() - 2, second = tensor.rank() - 3;
  if (second >= 0 && tensor.stride(second) < tensor.stride(first)) std::swap(first, second);
  for (const int axis : {first, second}) {
    if (axis < 0 || tensor.dim(axis) <= 1) continue;
    if (tensor.stride(axis) < span) {
      return make_error(ErrorCode::bad_shape, "{}: {} is {} with strides {}, wanted rows that do not overlap", op, name,
                        to_string(tensor.shape()), to_string(tensor.strides()));
    }
    span += tensor.stride(axis) * (tensor.dim(axis) - 1);
  }
  return {};
}

std::int64_t row_count(const Tensor& tensor) noexcept {
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < tensor.rank(); ++i) rows *= tensor.dim(i);
  return rows;
}

RowStrides row_strides(const Tensor& tensor) noexcept {
  if (tensor.rank() == 1) return kSameRow;
  if (tensor.rank() == 2) return {1, tensor.stride(0), 0};
  return {tensor.dim(1) > 0 ? tensor.dim(1) : 1, tensor.stride(0), tensor.stride(1)};
}

bool rows_aligned(const Tensor& tensor, std::int64_t elems) noexcept {
  const auto unit = static_cast<std::uint64_t>(elems) * block_bytes(tensor.dtype());
  if (reinterpret_cast<std::uintptr_t>(device_address(tensor)) % unit != 0) return false;
  for (int i = 0; i + 1 < tensor.rank(); ++i) {
    if (tensor.dim(i) > 1 && tensor.stride(i) % elems != 0) return false;
  }
  return true;
}

Result<void> check_no_isa(std::string_view op, std::optional<CpuIsa> isa) {
  if (!isa) return {};
  return make_error(ErrorCode::unsupported, "{}: the {} variant is for a cpu, the device is a GPU", op, mlxn::to_string(*isa));
}

}  // namespace mlxn::ops
