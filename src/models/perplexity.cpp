#include "mlxn/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/call_user.h"
#include "base/error.h"
#include "models/host_copy.h"

namespace mlxn {
namespace {

/// Logits of this many bytes are held at once.
constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;

/// -ln of the probability that the logits give the token.
double surprise(std::span<const float> logits, TokenId token) {
  const float peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - peak));
  return std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token)] - peak);
}

/// Mean and spread of the surprises so far.
struct Tally {
  double sum = 0, squares = 0;
  PerplexityResult result;

  void add(double nll) {
    sum += nll;
    squares += nll * nll;
    ++result.tokens;
  }
  void finish_chunk() {
    const auto count = static_cast<double>(result.tokens);
    const double mean = sum / count, variance = squares / count - mean * mean;
    ++result.chunks;
    result.perplexity = std::exp(mean);
    result.error = variance > 0 && count > 1 ? std::sqrt(variance / (count - 1)) * result.perplexity : 0;
  }
};

Result<void> check(const Model& model, std::span<const TokenId> tokens, const PerplexityOptions& options) {
  if (!model.defined()) return make_error(ErrorCode::invalid_argument, "perplexity: empty model handle");
  if (options.context < 4) {
    return make_error(ErrorCode::invalid_argument, "perplexity: a context of {} tokens, wanted at least 4", options.context);
  }
  if (options.chunks != -1 && options.chunks < 1) {
    return make_error(ErrorCode::invalid_argument, "perplexity: {} chunks, wanted at least 1, or -1 for all", options.chunks);
  }
  if (options.bos && (*options.bos < 0 || *options.bos >= model.info().vocab)) {
    return make_error(ErrorCode::out_of_range, "perplexity: token {} outside the vocabulary of {}", *options.bos, model.info().vocab);
  }
  if (static_cast<std::int64_t>(tokens.size()) / 2 < options.context) {
    return make_error(ErrorCode::invalid_argument, "perplexity: {} tokens, wanted at least two chunks of {}", tokens.size(),
                      options.context);
  }
  return {};
}

Result<PerplexityResult> measure(const Model& model, std::span<const TokenId> tokens, const PerplexityOptions& options) {
  MLXN_CHECK(check(model, tokens, options));
  SessionOptions session_options;
  session_options.context = options.context;
  session_options.batch = options.batch;
  session_options.kv_type = options.kv_type;
  session_options.numerics = options.numerics;
  MLXN_TRY(Session session, Session::create(model, session_options));

  const std::int64_t vocab = model.info().vocab, first = options.context / 2;
  const std::int64_t piece = std::clamp<std::int64_t>(kLogitBytes / 4 / vocab, 1, std::min(options.batch, options.context));
  MLXN_TRY(const Tensor logits, model.device().allocate(DType::f32, {piece, vocab}));
  std::int64_t chunks = static_cast<std::int64_t>(tokens.size()) / options.context;
  if (options.chunks != -1) chunks = std::min(chunks, options.chunks);
  Tally tally;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const auto begin = tokens.begin() + chunk * options.context;
    std::vector<TokenId> ids(begin, begin + options.context);
    if (options.bos) ids[0] = *options.bos;
    MLXN_CHECK(session.truncate(0));
    MLXN_CHECK(session.append(std::span(ids).first(static_cast<std::size_t>(first))));
    for (std::int64_t at = first; at < options.context - 1;) {
      const std::int64_t rows = std::min(piece, options.context - 1 - at);
      MLXN_TRY(const Tensor part, logits.slice(0, 0, rows));
      MLXN_CHECK(session.append_with_logits(std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(rows)), part));
      MLXN_TRY(const std::vector<float> values, models::to_host<float>(part));
      for (std::int64_t row = 0; row < rows; ++row) {
        tally.add(surprise({values.data() + row * vocab, static_cast<std::size_t>(vocab)}, ids[static_cast<std::size_t>(at + row + 1)]));
      }
      at += rows;
    }
    tally.finish_chunk();
    if (!options.progress) continue;
    MLXN_TRY(const bool goes_on,
             call_user("perplexity: the function `progress`", [&]() -> Result<bool> { return options.progress(tally.result); }));
    if (!goes_on) {
      return make_error(ErrorCode::cancelled, "perplexity: stopped after {} of {} chunks", chunk + 1, chunks);
    }
  }
  return tally.result;
}

}  // namespace

Result<PerplexityResult> measure_perplexity(const Model& model, std::span<const TokenId> tokens, const PerplexityOptions& options) {
  return detail::guarded([&] { return measure(model, tokens, options); });
}

}  // namespace mlxn
