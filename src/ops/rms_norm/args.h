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
};

}  // namespace ops
}  // namespace mlxn
