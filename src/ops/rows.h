#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// Where the rows of a tensor [dim], [rows, dim] or [outer, inner, dim] begin, in elements.
struct RowStrides {
  int64_t inner;  ///< rows per step of the outer axis, at least 1
  int64_t outer_stride;
  int64_t inner_stride;

  MLXN_ARGS_FN int64_t at(int64_t row) const {
    return row / inner * outer_stride + row % inner * inner_stride;
  }
};

}  // namespace ops
}  // namespace mlxn
