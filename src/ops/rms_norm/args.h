#pragma once

#include "ops/rows.h"
#include "portable/args.h"

namespace mlxn {
namespace ops {

struct RmsNormArgs {
  In<void> x;
  In<void> w;  ///< null: all ones
  Out<void> y;
  int64_t rows, dim;
  RowStrides x_strides, y_strides;
  float eps;
  uint32_t aligned;  ///< GPU: four elements from a multiple of four on are at an address that is a multiple of their size
};

}  // namespace ops
}  // namespace mlxn
