#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "mlxn/model.h"

namespace mlxn {

struct PerplexityResult {
  double perplexity = 0;  ///< exp of the mean of -ln p over the scored tokens
  double error = 0;       ///< its standard error: perplexity * standard deviation of -ln p / sqrt(tokens - 1)
  std::int64_t tokens = 0;  ///< scored so far
  std::int64_t chunks = 0;  ///< done so far
};

struct PerplexityOptions {
  std::int64_t context = 512;  ///< tokens of a chunk, at least 4
  std::int64_t chunks = -1;    ///< at most so many; -1 for all
  std::int64_t batch = 512;    ///< most tokens that one forward pass takes; the result does not depend on it but by rounding
  std::optional<TokenId> bos;  ///< takes the place of each chunk's first token
  DType kv_type = DType::f16;  ///< f16 or f32
  Numerics numerics = Numerics::automatic;  ///< as of a Session
  /// Called after each chunk with the estimate up to there. Returning false stops with `cancelled`, an exception with
  /// invalid_argument and the exception's text.
  std::function<bool(const PerplexityResult&)> progress;
};

/// How well a model predicts a text, as llama.cpp measures it: the tokens are cut into chunks of `context`, what is left over
/// is dropped; each chunk starts from nothing, and the tokens of its second half but the first are scored by the
/// probability that the model gives them after all that precede them in the chunk.
///
/// Errors: invalid_argument (an option, less than two chunks of tokens, `progress` threw), out_of_range (a token outside the
/// vocabulary), those of Session::create and Session::append, cancelled.
[[nodiscard]] Result<PerplexityResult> measure_perplexity(const Model& model, std::span<const TokenId> tokens,
                                                          const PerplexityOptions& options = {});

}  // namespace mlxn
