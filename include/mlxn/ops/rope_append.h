#pragma once

#include "mlxn/ops/kv_append.h"
#include "mlxn/ops/rope.h"

namespace mlxn {

/// rope(q, q); rope(k_new, k_new); kv_append(k_new, v_new)          what stands between a layer's projections and its attention
///
/// q          [seq, heads, head_dim]        f32; turned in place; last axis contiguous, any strides on the others
/// k_new      [seq, kv_heads, head_dim]     likewise
/// v_new      [seq, kv_heads, head_dim_v]   f32
/// positions  [seq]                         i32, contiguous: what the heads are turned by
/// k_cache, v_cache, position, options      as in kv_append: where they go
/// q, k_new and v_new overlap each other and the caches nowhere; they may be parts of one tensor.
/// On a GPU one kernel; on a CPU the two operations one after the other. Bits are those of the operations.
/// Empty: seq == 0 succeeds and writes nothing; heads == 0 is legal.
/// Errors: bad_shape, bad_dtype, aliased, out_of_range (position), invalid_argument (an empty table), wrong_device, wrong_state,
/// out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> rope_append(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                                       const Tensor& positions, const RopeTable& table, const Tensor& k_cache, const Tensor& v_cache,
                                       const Scalar<std::int64_t>& position, const KvAppendOptions& options = {});

}  // namespace mlxn
