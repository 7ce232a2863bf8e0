#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/mul.h"
#include "ops/elementwise_args.h"

namespace mlxn::ops {

/// mlxn::mul with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_mul(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y,
                                      std::optional<CpuIsa> isa);

/// The GPU kernel for operands of these types.
[[nodiscard]] gpu::Kernel<ElementwiseArgs> mul_gpu(DType a, DType b) noexcept;

}  // namespace mlxn::ops
