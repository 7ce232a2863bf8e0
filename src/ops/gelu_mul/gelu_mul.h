#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/gelu_mul.h"

namespace mlxn::ops {

/// mlxn::gelu_mul with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_gelu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y,
                                           std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
