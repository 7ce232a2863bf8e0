#pragma once

#include "ops/matmul/gpu.h"

// Products on Hopper's matrix units, of weights that lie in records (quant/records.h), in class f16.

namespace mlxn::ops {

/// Whether weights of the type are prepared as records on a Hopper GPU.
[[nodiscard]] bool has_hopper_kernels(DType type) noexcept;

[[nodiscard]] inline bool uses_hopper(WeightForm form, Numerics numerics) noexcept {
  return form == WeightForm::records && numerics == Numerics::f16;
}

/// The largest m that the vector route serves better.
[[nodiscard]] std::int64_t hopper_vector_threshold(const MatmulShape& shape) noexcept;

/// Records the product. The operands have been checked; the weights are records, the class is f16.
[[nodiscard]] Result<void> matmul_hopper(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights,
                                         const Tensor& y, const MatmulShape& shape, const MatmulChoice& choice);
[[nodiscard]] MatmulGpuPlan plan_matmul_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept;

}  // namespace mlxn::ops
