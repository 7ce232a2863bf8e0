#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/argmax.h"
#include "ops/argmax/args.h"

namespace mlxn::ops {

/// mlxn::argmax with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_argmax(CommandEncoder& encoder, const Tensor& x, const Tensor& ids, const Tensor& values,
                                         std::optional<CpuIsa> isa);

/// Fills in the parts and records.
[[nodiscard]] Result<void> argmax_gpu(CommandEncoder& encoder, Launch<ArgmaxGpuArgs>& launch, DType x);

}  // namespace mlxn::ops
