#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/kv_append.h"
#include "ops/kv_append/args.h"

namespace mlxn::ops {

/// mlxn::kv_append with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_kv_append(CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new,
                                            const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                            const KvAppendOptions& options, std::optional<CpuIsa> isa);

[[nodiscard]] Result<void> kv_append_gpu(CommandEncoder& encoder, const Launch<KvAppendArgs>& launch);

}  // namespace mlxn::ops
