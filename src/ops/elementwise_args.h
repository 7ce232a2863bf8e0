#pragma once

#include "ops/rows.h"
#include "portable/args.h"

namespace mlxn {
namespace ops {

/// The launch struct of add, mul, scale, softcap, silu_mul and gelu_mul.
struct ElementwiseArgs {
  In<void> a;
  In<void> b;  ///< null if the operation has none
  Out<void> y;
  int64_t rows, dim;
  RowStrides a_strides, b_strides, y_strides;
  float factor;
};

/// Elements that a group of a GPU takes.
constexpr uint32_t kElementwisePerGroup = 1024;

}  // namespace ops
}  // namespace mlxn
