#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/rms_norm.h"
#include "ops/rms_norm/args.h"

namespace mlxn::ops {

/// mlxn::rms_norm with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_rms_norm(CommandEncoder& encoder, const Tensor& x, const Tensor& w, const Tensor& y,
                                           float eps, std::optional<CpuIsa> isa);

/// On a GPU, rows up to this length are one SIMD-group's: heads, whose many rows keep the device busy.
inline constexpr std::int64_t kRmsNormShortRow = 256;

[[nodiscard]] Result<void> rms_norm_gpu(CommandEncoder& encoder, const Launch<RmsNormArgs>& launch, DType x, DType w);

}  // namespace mlxn::ops
