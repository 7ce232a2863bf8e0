#pragma once

#include <optional>
#include <string>

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

/// Of variants that are CUDA's alone.
[[nodiscard]] std::string lacks_cuda();
[[nodiscard]] bool has_cuda();

/// What every operation that attends wants of its operands and options, whose encoder has been checked.
[[nodiscard]] Result<void> check_attention(std::string_view op, const CommandEncoder& encoder, const Tensor& q, const Tensor& k,
                                           const Tensor& v, const Tensor& y, const Scalar<std::int64_t>& kv_len,
                                           const AttentionOptions& options);
[[nodiscard]] float attention_scale(const AttentionOptions& options, std::int64_t head_dim) noexcept;
/// Such that no sum of positions leaves 64 bits.
[[nodiscard]] std::int64_t attention_window(const AttentionOptions& options) noexcept;

/// mlxn::attention with the variant of one instruction set and route; without a wish the best one.
[[nodiscard]] Result<void> encode_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v,
                                            const Tensor& y, const Scalar<std::int64_t>& kv_len,
                                            const AttentionOptions& options, std::optional<CpuIsa> isa, AttentionRoute route);

/// Chooses kernels and grid; fills what `launch` lacks for a GPU.
[[nodiscard]] Result<void> attention_gpu(CommandEncoder& encoder, Launch<AttentionArgs>& launch, const Tensor& q, const Tensor& k,
                                         const Tensor& v, AttentionRoute route);

}  // namespace mlxn::ops
