#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

struct SoftmaxArgs {
  In<void> x;                        ///< [rows, cols]
  Out<void> y;                       ///< [rows, cols]
  int64_t rows, cols, x_row, y_row;  ///< strides in elements
};

/// On a GPU: rows up to this length are one SIMD-group's, and so many of them one group's.
constexpr uint32_t kSoftmaxShortCols = 256, kSoftmaxShortRows = 4;
/// Rows up to this length stay in a group's registers.
constexpr uint32_t kSoftmaxKeptCols = 4096;

}  // namespace ops
}  // namespace mlxn
