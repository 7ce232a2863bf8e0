#pragma once

#include "mlxn/ops/matmul.h"

namespace mlxn::ops {

/// The largest m that is better served by the vector route on a GPU.
inline constexpr std::int64_t kGpuVectorThreshold = 8;

/// Records the product on a GPU: numerics is exact, f16 or bf16, route vector or tile. The operands have been checked.
[[nodiscard]] Result<void> matmul_gpu(std::string_view op, CommandEncoder& encoder, const Tensor& x, const Tensor& weights,
                                      bool prepared, const Tensor& y, const MatmulShape& shape, Numerics numerics, Route route);

/// What it runs on a device of so many cores, for weights that begin at a multiple of 256 bytes.
struct MatmulGpuPlan {
  std::string_view kernel;
  std::int64_t rows = 0;  ///< of x that a pass over the weights serves
  bool taken_apart = false;  ///< raw blocks are laid out as prepared ones first
};
[[nodiscard]] MatmulGpuPlan plan_matmul_gpu(const MatmulShape& shape, bool prepared, Route route, std::uint32_t cores) noexcept;

}  // namespace mlxn::ops
