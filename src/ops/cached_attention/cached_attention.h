#pragma once

#include <vector>

#include "backends/gpu/launch.h"
#include "mlxn/ops/cached_attention.h"

namespace mlxn::ops {

enum class CachedAttentionRoute : std::uint8_t {
  automatic,
  two_ops,  ///< rope_append and attention are recorded
  fused,    ///< one kernel, of Hopper
};

/// What the choice goes by, beside the kinds of operands.
struct CachedAttentionProblem {
  std::int64_t rows = 1;      ///< query rows of a key head
  std::int64_t head_dim = 1;
  std::int64_t kv_heads = 1;
  std::int64_t keys = 1;      ///< that a launch may have to go through
  std::int64_t cores = 1;     ///< multiprocessors
};

/// Whether there is a kernel for the shape at all.
[[nodiscard]] bool fits_cached_attention(const CachedAttentionProblem& p) noexcept;
/// Blocks that share the keys of a key head, a power of two: as many as have a tile each and a multiprocessor to themselves.
[[nodiscard]] std::uint32_t cached_attention_blocks(const CachedAttentionProblem& p) noexcept;
/// Whether these blocks are done before rope_append and the two kernels of attention, which occupy the whole device, would be.
[[nodiscard]] bool prefers_cached_attention(const CachedAttentionProblem& p) noexcept;

struct CachedAttentionPlan {
  CachedAttentionRoute route = CachedAttentionRoute::two_ops;  ///< never automatic
  std::string_view lacks{};     ///< two_ops: what keeps the kernel from the call
  bool can_be_fused = false;    ///< whether `fused` may be wished for
  std::uint32_t blocks = 0;     ///< of a cluster, if it can
  const gpu::KernelInfo* kernel = nullptr;
};
/// What encode_cached_attention does without a wish, of operands that it would take.
[[nodiscard]] CachedAttentionPlan plan_cached_attention(const CommandEncoder& encoder, const Tensor& q, const Tensor& k_cache,
                                                        const Tensor& v_cache, const AttentionOptions& options,
                                                        const KvAppendOptions& append);

/// mlxn::cached_attention by a route; unsupported where there is no kernel for the wish.
[[nodiscard]] Result<void> encode_cached_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                                                   const Tensor& positions, const RopeTable& table, const Tensor& k_cache,
                                                   const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                                   const Scalar<std::int64_t>& kv_len, const Tensor& y,
                                                   const AttentionOptions& options, const KvAppendOptions& append,
                                                   CachedAttentionRoute route);

/// The kernels, for tests.
[[nodiscard]] std::vector<const gpu::KernelInfo*> cached_attention_kernels();

}  // namespace mlxn::ops
