#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/argmax.h"

namespace mlxn::ops {

/// mlxn::argmax with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_argmax(CommandEncoder& encoder, const Tensor& x, const Tensor& ids, const Tensor& values,
                                         std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
