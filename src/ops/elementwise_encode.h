#pragma once

#include "backends/gpu/launch.h"
#include "ops/elementwise.h"
#include "ops/row_check.h"

namespace mlxn::ops {

/// How an elementwise operation speaks of its operands, and its kernels.
struct ElementwiseOp {
  std::string_view name;
  std::string_view a_name;
  std::string_view b_name;  ///< empty: there is no b
  bool row_b;               ///< b may be one row [dim] and f32
  std::span<const IsaVariant<ElementwiseSelect>> variants;
  gpu::Kernel<ElementwiseArgs> (*gpu)(DType a, DType b) noexcept;
};

/// Checks the contract that the operations share and records the dispatch. b is ignored if the operation has none.
[[nodiscard]] Result<void> encode_elementwise(const ElementwiseOp& op, CommandEncoder& encoder, const Tensor& a,
                                              const Tensor& b, const Tensor& y, float factor, std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
