#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "mlxn/ops/matmul.h"

namespace mlxn::ops {

/// The public operations; `isa` asks for the variant of one instruction set (unsupported if this machine has it not).
[[nodiscard]] Result<void> encode_quantized_matmul_ggml(CommandEncoder& encoder, const Tensor& x, const Tensor& raw,
                                                        const Tensor& y, const MatmulShape& shape,
                                                        const MatmulOptions& options, std::optional<CpuIsa> isa);
[[nodiscard]] Result<void> encode_matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                                         const MatmulOptions& options, std::optional<CpuIsa> isa);

/// Why a product takes the class, the route and the inner loop that it takes on a device: one line of text each, from the
/// same functions that record it. The thresholds in them are found by asking these for other m.
[[nodiscard]] Result<std::vector<std::string>> explain_matmul(const Device& device, const MatmulShape& shape, bool prepared,
                                                              const MatmulOptions& options);

}  // namespace mlxn::ops
