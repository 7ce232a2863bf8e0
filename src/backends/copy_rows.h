#pragma once

#include <cstdint>

#include "mlxn/tensor.h"

namespace mlxn {

/// A copy between two tensors as evenly spaced rows of contiguous bytes.
struct CopyRows {
  std::uint64_t rows = 1, row_bytes = 0;
  std::uint64_t to_pitch = 0, from_pitch = 0;  ///< bytes from row to row
};
/// Rows as long as both tensors allow. bad_shape if the rows of one have gaps or are not evenly spaced.
[[nodiscard]] Result<CopyRows> copy_rows_of(const Tensor& to, const Tensor& from);

}  // namespace mlxn
