#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/matmul.h"

namespace mlxn::ops {

/// The public operations; `isa` asks for the variant of one instruction set (unsupported if this machine has it not).
[[nodiscard]] Result<void> encode_quantized_matmul_ggml(CommandEncoder& encoder, const Tensor& x, const Tensor& raw,
                                                        const Tensor& y, const MatmulShape& shape,
                                                        const MatmulOptions& options, std::optional<CpuIsa> isa);
[[nodiscard]] Result<void> encode_matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                                         const MatmulOptions& options, std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
