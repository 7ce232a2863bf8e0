#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/silu_mul.h"
#include "ops/elementwise_args.h"

namespace mlxn::ops {

/// mlxn::silu_mul with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_silu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y,
                                           std::optional<CpuIsa> isa);

/// The GPU kernel for operands of these types.
[[nodiscard]] gpu::Kernel<ElementwiseArgs> silu_mul_gpu(DType a, DType b) noexcept;

}  // namespace mlxn::ops
