#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/scale.h"
#include "ops/elementwise_args.h"

namespace mlxn::ops {

/// mlxn::scale with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_scale(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float factor,
                                        std::optional<CpuIsa> isa);

/// The GPU kernel for operands of these types.
[[nodiscard]] gpu::Kernel<ElementwiseArgs> scale_gpu(DType a, DType b) noexcept;

}  // namespace mlxn::ops
