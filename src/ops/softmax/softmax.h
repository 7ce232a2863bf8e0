#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/softmax.h"
#include "ops/softmax/args.h"

namespace mlxn::ops {

/// mlxn::softmax with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_softmax(CommandEncoder& encoder, const Tensor& x, const Tensor& y, std::optional<CpuIsa> isa);

[[nodiscard]] Result<void> softmax_gpu(CommandEncoder& encoder, const Launch<SoftmaxArgs>& launch, DType x);

}  // namespace mlxn::ops
