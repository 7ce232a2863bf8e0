#pragma once

#include "portable/args.h"
#include "quant/gpu_weight.h"

namespace mlxn {
namespace ops {

/// Rows of a table on a GPU.
struct EmbeddingGpuArgs {
  In<uint32_t> ids;
  quant::GpuWeight table;
  Out<void> y;
  int64_t n, dim;
  int64_t y_stride;  ///< elements from row to row
  uint32_t y_type;   ///< quant::kElementF32...
  float scale;
  uint32_t gathered;  ///< row i of the table is that of ids[i]
  uint32_t reserved;
};

}  // namespace ops
}  // namespace mlxn
