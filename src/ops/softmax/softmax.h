#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/softmax.h"

namespace mlxn::ops {

/// mlxn::softmax with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_softmax(CommandEncoder& encoder, const Tensor& x, const Tensor& y, std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
