#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/add.h"

namespace mlxn::ops {

/// mlxn::add with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_add(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y,
                                      std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
