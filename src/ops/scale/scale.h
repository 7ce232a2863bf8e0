#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/scale.h"

namespace mlxn::ops {

/// mlxn::scale with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_scale(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float factor,
                                        std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
