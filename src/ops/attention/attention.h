#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/attention.h"
#include "ops/attention/args.h"

namespace mlxn::ops {

enum class AttentionRoute : std::uint8_t {
  automatic,
  tiled,           ///< any number of query rows
  portable_tiled,  ///< the same, without kernels that are one kind of GPU's alone
  split,           ///< at most kAttentionSplitRows query rows per key head, the threads share the keys
};

/// mlxn::attention with the variant of one instruction set and route; without a wish the best one.
[[nodiscard]] Result<void> encode_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v,
                                            const Tensor& y, const Scalar<std::int64_t>& kv_len,
                                            const AttentionOptions& options, std::optional<CpuIsa> isa, AttentionRoute route);

/// Chooses kernels and grid; fills what `launch` lacks for a GPU.
[[nodiscard]] Result<void> attention_gpu(CommandEncoder& encoder, Launch<AttentionArgs>& launch, const Tensor& q, const Tensor& k,
                                         const Tensor& v, AttentionRoute route);

}  // namespace mlxn::ops
