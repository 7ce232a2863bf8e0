#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/rope.h"
#include "ops/rope/args.h"

namespace mlxn::ops {

/// What every operation that turns x [seq, heads, head_dim] wants of it, its positions and the table.
[[nodiscard]] Result<void> check_rope_input(std::string_view op, std::string_view name, const CommandEncoder& encoder, const Tensor& x,
                                            const Tensor& positions, const RopeTable& table);

/// mlxn::rope with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_rope(CommandEncoder& encoder, const Tensor& x, const Tensor& positions,
                                       const RopeTable& table, const Tensor& y, RopeDirection direction,
                                       std::optional<CpuIsa> isa);

[[nodiscard]] Result<void> rope_gpu(CommandEncoder& encoder, const Launch<RopeArgs>& launch, DType x);

}  // namespace mlxn::ops
