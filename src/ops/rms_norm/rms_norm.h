#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/rms_norm.h"

namespace mlxn::ops {

/// mlxn::rms_norm with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& w, const Tensor& y,
                                           float eps, std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
