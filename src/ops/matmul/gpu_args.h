#pragma once

#include "portable/args.h"
#include "quant/gpu_weight.h"

namespace mlxn {
namespace ops {

/// A product on a GPU. Rows of x begin at multiples of 16 bytes.
struct MatmulGpuArgs {
  quant::GpuWeight w;
  In<float> x;
  Out<void> y;
  int64_t m, n, k;
  int64_t x_stride, y_stride;  ///< elements from row to row
  uint32_t y_type;  ///< quant::kElementF32...
  uint32_t split;  ///< vector route: SIMD-groups that share a row, a divisor of those in a group
};

/// x as the products take it: rounded to the class, rows padded to multiples of 16 bytes.
struct MatmulStageArgs {
  In<void> x;
  Out<void> out;
  int64_t m, k;
  int64_t x_stride, out_stride;  ///< elements from row to row
  uint32_t x_type, out_type;  ///< quant::kElementF32...
  uint32_t round_to;  ///< kElementF32: not at all
};

}  // namespace ops
}  // namespace mlxn
