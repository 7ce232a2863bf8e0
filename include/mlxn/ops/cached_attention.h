#pragma once

#include "mlxn/ops/attention.h"
#include "mlxn/ops/rope_append.h"

namespace mlxn {

/// rope_append(q, k_new, v_new); attention(q, cache, y)          what stands between a layer's projections and its output's
///
/// q          [seq, heads, head_dim]          f32; last axis contiguous, any strides on the others
/// k_new, v_new  [seq, kv_heads, head_dim]    likewise
/// positions  [seq]                           i32, contiguous: what the heads of q and k_new are turned by
/// k_cache, v_cache  [kv_heads, capacity, head_dim]  f32 or both f16; as in kv_append: where k_new, turned, and v_new go. What
///                                            attention is planned for is their capacity: a slice of a larger cache, of the
///                                            slots that may be in use, makes it cheaper
/// position   slot of the first new token, as in rope_append
/// kv_len     keys of the cache that there are then; the queries see what attention() shows them
/// y          [seq, heads, head_dim]          f32; last axis contiguous, any strides on the others; overlaps no other operand
/// append, options  those of the two operations; sinks and lse overlap no other operand, lse is [heads, seq]
/// q, k_new and v_new overlap each other and the caches nowhere; they may be parts of one tensor. What q and k_new hold
/// afterwards is unspecified.
/// On a Hopper GPU one kernel, if the cache is f16 in rows that start and end at multiples of 16 bytes and is no ring, head_dim is
/// at most 128, there are up to 8 query rows per key head, at the newest keys (causal, no p0), lse is not wanted, and there are so
/// few keys (a few thousand) that the key heads' own multiprocessors are done with them sooner. Everywhere else the two operations
/// are recorded, one after the other.
/// Numerics: as those of the two operations; where they are recorded, their bits. Same call, same bits; a row's bits do not depend
/// on the other rows as long as the same kernels run.
/// Empty: seq == 0 or heads == 0 succeeds and writes nothing beyond what rope_append writes.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (an empty table, scale, window, softcap), out_of_range (position, kv_len,
/// ring_start, p0), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> cached_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                                            const Tensor& positions, const RopeTable& table, const Tensor& k_cache,
                                            const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                            const Scalar<std::int64_t>& kv_len, const Tensor& y, const AttentionOptions& options = {},
                                            const KvAppendOptions& append = {});

}  // namespace mlxn
