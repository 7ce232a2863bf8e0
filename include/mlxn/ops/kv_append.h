#pragma once

#include <cstdint>

#include "mlxn/encoder.h"

namespace mlxn {

struct KvAppendOptions {
  /// The slot of position q is q mod capacity, so that new tokens overwrite the oldest; otherwise it is q itself.
  bool ring = false;
};

/// k_cache[h, slot(position + t), :] = k_new[t, h, :], and the same for v                writes seq tokens into a KV cache
///
/// k_new    [seq, kv_heads, head_dim]       f32; last axis contiguous, any strides on the others
/// v_new    [seq, kv_heads, head_dim_v]     likewise; head_dim_v may differ from head_dim
/// k_cache  [kv_heads, capacity, head_dim]    f32 f16; last axis contiguous, any strides on the others; must overlap no
/// v_cache  [kv_heads, capacity, head_dim_v]  other operand; the two may differ in dtype
/// position >= 0, absolute position of the first new token. Without `ring`, position + seq <= capacity. As a parameter of a
///          Graph it keeps these bounds: Graph::set refuses others.
/// seq      <= capacity, so that no two tokens meet in one slot
/// Numerics: f16 rounds to nearest even; beyond 65504 it becomes infinity.
/// Empty: seq == 0 succeeds and writes nothing; kv_heads, capacity or head_dim == 0 is bad_shape.
/// Errors: bad_shape, bad_dtype, aliased, out_of_range (position), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> kv_append(CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new, const Tensor& k_cache,
                                     const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                     const KvAppendOptions& options = {});

}  // namespace mlxn
