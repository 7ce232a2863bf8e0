#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/add_rms_norm.h"
#include "ops/add_rms_norm/args.h"

namespace mlxn::ops {

/// mlxn::add_rms_norm with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_add_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& residual, const Tensor& w,
                                               const Tensor& sum, const Tensor& y, float eps, std::optional<CpuIsa> isa);

[[nodiscard]] Result<void> add_rms_norm_gpu(CommandEncoder& encoder, const Launch<AddRmsNormArgs>& launch, DType x, DType w);

}  // namespace mlxn::ops
