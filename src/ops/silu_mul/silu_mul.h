#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/silu_mul.h"

namespace mlxn::ops {

/// mlxn::silu_mul with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_silu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y,
                                           std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
