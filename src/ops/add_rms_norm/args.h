#pragma once

#include "ops/rows.h"
#include "portable/args.h"

namespace mlxn {
namespace ops {

struct AddRmsNormArgs {
  In<void> x, residual;
  In<void> w;  ///< null: all ones
  InOut<void> sum;
  Out<void> y;
  int64_t rows, dim;
  RowStrides x_strides, residual_strides, sum_strides, y_strides;
  float eps;
  uint32_t aligned;  ///< GPU: four elements from a multiple of four on are at an address that is a multiple of their size
};

}  // namespace ops
}  // namespace mlxn
