#pragma once

#include <cstdint>

namespace mlxn::ops {

/// Where the rows of a tensor [dim], [rows, dim] or [outer, inner, dim] begin, in elements.
struct RowStrides {
  std::int64_t inner;  ///< rows per step of the outer axis, at least 1
  std::int64_t outer_stride;
  std::int64_t inner_stride;

  [[gnu::always_inline]] std::int64_t at(std::int64_t row) const {
    return row / inner * outer_stride + row % inner * inner_stride;
  }
};

}  // namespace mlxn::ops
