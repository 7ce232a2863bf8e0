#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/rope.h"

namespace mlxn::ops {

/// mlxn::rope with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_rope(CommandEncoder& encoder, const Tensor& x, const Tensor& positions,
                                       const RopeTable& table, const Tensor& y, RopeDirection direction,
                                       std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
