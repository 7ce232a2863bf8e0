#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/gelu_mul.h"
#include "ops/elementwise_args.h"

namespace mlxn::ops {

/// mlxn::gelu_mul with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_gelu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y,
                                           std::optional<CpuIsa> isa);

/// The GPU kernel for operands of these types.
[[nodiscard]] gpu::Kernel<ElementwiseArgs> gelu_mul_gpu(DType a, DType b) noexcept;

}  // namespace mlxn::ops
