#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/softcap.h"

namespace mlxn::ops {

/// mlxn::softcap with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_softcap(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float cap,
                                          std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
