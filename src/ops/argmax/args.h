#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// The greatest element of a part of a row.
struct ArgmaxPart {
  int64_t index;  ///< -1: nothing but NaN
  float value;
  int32_t padding;
};

struct ArgmaxArgs {
  In<void> x;
  InOut<ArgmaxPart> parts;  ///< [rows, threads] if threads share the rows, else null
  Out<uint32_t> ids;
  Out<float> values;  ///< null: not wanted
  int64_t rows, n, row_stride;
};

/// The launch struct of a GPU, which cuts rows into parts. The best of a part is one number: ascending_bits of the element
/// above, the complement of its index below, so that the greatest one has the greatest element and the lowest index among equals.
struct ArgmaxGpuArgs {
  In<void> x;
  InOut<uint64_t> parts;  ///< [rows, parts_per_row], 0 where there is nothing but NaN; null if a row is one part
  Out<uint32_t> ids;
  Out<float> values;  ///< null: not wanted
  int64_t rows, n, row_stride;
  int64_t part_elems;
  int64_t parts_per_row;
};

}  // namespace ops
}  // namespace mlxn
