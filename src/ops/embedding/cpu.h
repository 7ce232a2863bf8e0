#pragma once

#include "backends/cpu/launch.h"
#include "mlxn/dtype.h"

namespace mlxn::ops {

struct EmbeddingArgs {
  In<std::uint32_t> ids;
  In<void> table;  ///< raw rows or, if prepared, the rows16 layout
  Out<void> y;
  InOut<float> row;  ///< one decoded row [dim] per thread that has rows
  std::int64_t seq, n, dim, y_stride;
  std::uint64_t row_bytes;  ///< of a raw row
  float scale;
  DType type;
  std::uint8_t prepared;
};

/// The kernel for a y of this type.
[[nodiscard]] cpu::Kernel<EmbeddingArgs> embedding_kernel(std::string_view name, DType y) noexcept;

}  // namespace mlxn::ops
