#pragma once

#include <cstdint>
#include <optional>

#include "mlxn/encoder.h"

namespace mlxn {

struct AttentionOptions {
  /// Factor of the logits; default 1 / sqrt(head_dim). Applied in f32 after the dot product.
  std::optional<float> scale{};
  /// A key at j is visible to query row i only if j <= p0 + i.
  bool causal = true;
  /// Of those, only if p0 + i - j < window. > 0, or -1 for no window; 0 is an error.
  std::int64_t window = -1;
  /// Index of the first query row among the keys, 0 being the oldest; may be negative. Default kv_len - seq: the queries
  /// belong to the newest keys. At most 2^40 of either sign.
  std::optional<Scalar<std::int64_t>> p0{};
  /// Slot of the oldest key in a ring cache: key j lies in slot (ring_start + j) mod capacity. Other than 0 only if the
  /// cache is full (kv_len == capacity).
  Scalar<std::int64_t> ring_start = 0;
  /// > 0: logits become softcap * tanh(logits / softcap), before any mask. 0: off.
  float softcap = 0;
  /// f32 [heads] contiguous: one more logit per head in the denominator, with no value. Empty: none.
  Tensor sinks{};
  /// f32 [heads, seq] (with q's batch axis in front if q has one), contiguous: receives the logarithm of every row's
  /// denominator, sink included; -inf for a row that sees nothing. Empty: not wanted.
  Tensor lse{};
};

/// y[h,i,:] = sum_j w_j * v[h/group,j,:] / sum_j w_j,  w_j = exp(scale * q[h,i,:] . k[h/group,j,:])
///                                                          attention over a KV cache, grouped heads, arXiv:1706.03762
///
/// q       [heads, seq, head_dim]         f32; last axis contiguous, any strides on the others
/// k, v    [kv_heads, capacity, head_dim]  f32 or both f16; last axis contiguous, any strides on the others; heads is a
///                                        multiple of kv_heads, and group = heads / kv_heads neighbours share one
/// y       as q in shape and dtype, any strides but the last (a permuted view makes it token-major); overlaps no other operand
/// kv_len  keys in the cache, 0 <= kv_len <= capacity. As parameters of a Graph kv_len, p0 and ring_start keep their bounds:
///         Graph::set refuses others. That ring_start is 0 until the cache is full is then up to the caller.
/// All four may have one more axis in front, the batch, equal in all of them; kv_len and the options hold for all of it.
/// head_dim is 1 to 512; on a GPU, capacity is at most 2^31 - 65.
/// Numerics: dots, softmax and sums in f32; f16 keys and values are exact. On an NVIDIA GPU with an f16 cache and a head_dim
/// up to 128, many query rows are multiplied as sums of two f16 numbers, 22 bits, and so are the weights. Same call, same
/// bits, whatever the number of threads. A key that a row does not see, and a slot that holds no key, never influence the row, even if they hold NaN.
/// A row that sees no key is exactly 0.
/// Empty: batch, heads or seq == 0 succeeds and writes nothing; kv_len == 0 makes every row 0.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (scale, window, softcap), out_of_range (kv_len, ring_start,
/// p0), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& y, const Scalar<std::int64_t>& kv_len, const AttentionOptions& options = {});

}  // namespace mlxn
