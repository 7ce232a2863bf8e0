#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// A streaming read.
struct MeasureReadArgs {
  In<uint8_t> data;      ///< aligned to 16 bytes
  InOut<uint32_t> sink;  ///< on a GPU word 0 grows by the sum of the data's words; on a CPU every thread has a line
  int64_t bytes;         ///< a multiple of 512
};

/// Multiply-adds on registers.
struct MeasureArithmeticArgs {
  InOut<float> sink;
  uint64_t rounds;
  float factor;   ///< between 0 and 1
  uint32_t int8;  ///< dot products of int8 instead (CPU)
};

/// Nothing.
struct MeasureEmptyArgs {
  InOut<uint32_t> sink;
};

}  // namespace ops
}  // namespace mlxn
