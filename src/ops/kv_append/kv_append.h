#pragma once

#include <optional>

#include "base/cpu_features.h"
#include "mlxn/ops/kv_append.h"

namespace mlxn::ops {

/// mlxn::kv_append with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_kv_append(CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new,
                                            const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                            const KvAppendOptions& options, std::optional<CpuIsa> isa);

}  // namespace mlxn::ops
