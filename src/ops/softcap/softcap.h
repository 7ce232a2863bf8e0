#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/softcap.h"
#include "ops/elementwise_args.h"

namespace mlxn::ops {

/// mlxn::softcap with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_softcap(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float cap,
                                          std::optional<CpuIsa> isa);

/// The GPU kernel for operands of these types.
[[nodiscard]] gpu::Kernel<ElementwiseArgs> softcap_gpu(DType a, DType b) noexcept;

}  // namespace mlxn::ops
