#include "mlxn/perplexity.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/inference.h"
#include "cli/model_flags.h"

namespace mlxn::cli {
namespace {

Result<int> perplexity(const PerplexityFlags& f) {
  catch_interrupts(OnInterrupt::end);
  PerplexityOptions options;
  options.context = f.context;
  options.chunks = f.chunks;
  options.batch = f.batch;
  MLXN_TRY(options.numerics, parse_precision(f.model.precision));
  MLXN_TRY(options.kv_type, parse_kv_type(f.kv_type));
  LoadOptions load;
  MLXN_TRY(load.prepare, parse_prepare(f.model.prepare));
  if (f.context < 4) return make_error(ErrorCode::invalid_argument, "-c: {}, wanted at least 4", f.context);
  if (f.batch < 1) return make_error(ErrorCode::invalid_argument, "-b: {}, wanted at least 1", f.batch);
  if (f.chunks != -1 && f.chunks < 1) {
    return make_error(ErrorCode::invalid_argument, "--chunks: {}, wanted at least 1, or -1 for all", f.chunks);
  }
  MLXN_TRY(std::string text, read_text(f.file));
  if (!text.empty() && text.back() == '\n') text.pop_back();  // as llama.cpp reads it
  MLXN_TRY(const OpenedFile opened, open_file(f.model));
  const Tokenizer& tokenizer = opened.tokenizer;
  EncodeOptions encode;
  encode.add_eos = false;
  MLXN_TRY(const std::vector<TokenId> tokens, tokenizer.encode(text, encode));
  if (tokenizer.adds_bos()) options.bos = tokenizer.bos();
  if (static_cast<std::int64_t>(tokens.size()) / 2 < f.context) {
    return make_error(ErrorCode::invalid_argument, "{}: {} tokens, wanted at least two chunks of {} (-c)", f.file, tokens.size(), f.context);
  }

  catch_interrupts(OnInterrupt::stop_once);
  MLXN_TRY(const Model model, load_model(opened, load));
  if (f.context > model.info().context) {
    complain(fmt::format("the context of {} is beyond the {} positions that the model was trained for", f.context,
                         model.info().context));
  }
  const bool progress = shows_progress();
  options.progress = [&](const PerplexityResult& so_far) {
    if (progress) show(fmt::format("[{}]{:.4f},", so_far.chunks, so_far.perplexity));
    return !interrupted();
  };
  const auto measured = [&] {
    const ChunksRun running;
    return measure_perplexity(model, tokens, options);
  }();
  if (progress) show("\n");
  if (!measured) return measured.error();
  if (!f.json) return print(fmt::format("PPL = {:.4f} +/- {:.5f}\n", measured->perplexity, measured->error)) ? kOk : kFailed;
  const nlohmann::json out = {{"perplexity", measured->perplexity}, {"error", measured->error},   {"tokens", measured->tokens},
                              {"chunks", measured->chunks},         {"context", options.context}, {"model", f.model.model}};
  return print(out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n") ? kOk : kFailed;
}

}  // namespace

int run_perplexity(const PerplexityFlags& flags) {
  const Result<int> result = detail::guarded([&] { return perplexity(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
