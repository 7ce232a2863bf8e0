#pragma once

#include "mlxn/encoder.h"

namespace mlxn {

/// How a token is drawn. The defaults draw from softmax(logits) as it is.
struct SampleOptions {
  float temperature = 1.0f;         ///< >= 0; 0 takes the most probable token, the lowest id among equals
  std::int64_t top_k = 0;           ///< keep the k greatest; <= 0 keeps all
  float top_p = 1.0f;               ///< 0 .. 1: keep the fewest tokens, greatest first, whose probabilities reach p; 1 keeps all
  float min_p = 0.0f;               ///< 0 .. 1: keep those with at least min_p times the greatest probability; 0 keeps all
  float repetition_penalty = 1.0f;  ///< > 0: recent tokens' positive logits are divided by it, the others multiplied
  float frequency_penalty = 0.0f;   ///< subtracted from a logit once per occurrence among the recent tokens
  float presence_penalty = 0.0f;    ///< subtracted once from the logits of recent tokens
  std::uint64_t seed = 0;
};

/// The window that penalties look at. Its order does not matter, so a ring buffer serves.
struct RecentTokens {
  Tensor ids;                     ///< [rows, window], or [window] for one row; u32 or i32; ids outside the vocabulary are ignored
  Scalar<std::int64_t> count = 0;  ///< entries of each row in use, the first ones; 0 <= count <= window
};

/// ids[r] = a token drawn from logits[r,:]
///
/// logits    [rows, vocab] or [vocab]   f32; last axis contiguous, any row stride; 0 < vocab < 2^31
/// ids       [rows] ([1] for logits [vocab])   u32, contiguous
/// step      the position of this draw in its sequence; a graph may bind it anew for every replay
/// recent    empty ids: no penalties
/// logprobs  as ids, f32: the log of the probability with which the token was drawn, after all filters; empty: not wanted
/// Order of the filters: penalties, top_k, top_p, min_p, temperature. top_p and min_p see probabilities at temperature 1.
/// Randomness: Philox4x32-10 with key `seed` and counter (step, r). The same logits, options, seed, step and r give the same
/// token on every machine and with any number of threads; logits are not changed.
/// A token's weight is a multiple of 2^-b of the greatest one's, b = 62 - log2(vocab) (44 for 2^18 tokens); less is not drawn.
/// NaN and -infinity are never drawn while another logit is left, and +infinity shares with +infinity alone; a row that has
/// neither a number nor +infinity gives id 0 with log-probability -infinity.
/// No two of logits, ids, logprobs and recent.ids may overlap.
/// Empty: rows == 0 succeeds and writes nothing; vocab == 0 is bad_shape.
/// Errors: invalid_argument (an option outside its domain or not finite, an empty logits or ids), out_of_range (count),
/// bad_shape, bad_dtype, aliased, wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> sample(CommandEncoder& encoder, const Tensor& logits, const Tensor& ids, const SampleOptions& options,
                                  const Scalar<std::int64_t>& step, const RecentTokens& recent = {},
                                  const Tensor& logprobs = {});

}  // namespace mlxn
