#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/system_memory.h"
#include "cli/inference.h"

namespace mlxn::cli {
namespace {

Result<int> generate(const GenerateFlags& f) {
  const auto start = Clock::now();
  catch_interrupts(OnInterrupt::end);
  if (f.prompt && f.prompt_file) return make_error(ErrorCode::invalid_argument, "-p and -f exclude each other");
  MLXN_TRY(InferenceOptions options, read_flags(f.inference));
  std::string prompt = f.prompt.value_or("");
  if (f.prompt_file) {
    MLXN_TRY(prompt, read_text(*f.prompt_file));
    if (!prompt.empty() && prompt.back() == '\n') prompt.pop_back();  // an editor's last newline is no part of the prompt
  }
  MLXN_TRY(const OpenedFile opened, open_file(f.inference.model));
  const Tokenizer& tokenizer = opened.tokenizer;

  EncodeOptions encode;
  encode.parse_special = true;
  encode.add_eos = false;
  MLXN_TRY(const std::vector<TokenId> tokens, tokenizer.encode(prompt, encode));
  if (tokens.empty()) {
    return make_error(ErrorCode::invalid_argument, "nothing to start from: no prompt, and the model has no beginning-of-text token");
  }

  catch_interrupts(OnInterrupt::stop_once);
  MLXN_TRY(const Model model, load_model(opened, options.load));
  const auto count = static_cast<std::int64_t>(tokens.size());
  if (const std::int64_t context = context_of(f.inference, model); count > context) {
    return make_error(ErrorCode::out_of_range, "the prompt has {} tokens, the context {} (raise it with -c)", count, context);
  }
  options.session.batch = std::min(options.session.batch, count);
  MLXN_TRY(Session session, make_session(model, f.inference, options.session));
  MLXN_TRY(Sampler sampler, make_sampler(model, session, options.sampler));
  Timing timing;
  timing.load = seconds_since(start);

  StreamDecoder shown(tokenizer, {});
  for (const TokenId token : tokens) {
    MLXN_TRY(const std::string piece, shown.push(token));
    if (!f.no_display_prompt && !print(piece)) return kFailed;
  }

  const auto prompt_start = Clock::now();
  auto logits = append_prompt(session, tokens);
  timing.prompt = seconds_since(prompt_start);
  if (!logits && logits.error().code() != ErrorCode::cancelled) return logits.error();
  timing.prompt_tokens = static_cast<std::size_t>(session.length());  // fewer if Ctrl-C stopped it
  for (const TokenId token : tokens) MLXN_CHECK(sampler.accept(token));

  const auto generate_start = Clock::now();
  const std::int64_t predict = f.inference.predict;
  TokenId token = 0;
  Counters at_first_pass;  // after the first pass over one token, which records it
  bool stopped = !logits;  // by Ctrl-C
  while (!stopped && (predict < 0 || static_cast<std::int64_t>(timing.generated) < predict)) {
    if ((stopped = interrupted())) break;
    // The prompt's pass gives the first token, the pass over a token the one after it.
    MLXN_TRY(token, timing.generated == 0 ? sampler.next(*logits) : session.next(token, sampler));
    if (timing.generated == 0) timing.first_token = seconds_since(start);
    if (timing.generated == 1) at_first_pass = opened.device.counters();
    ++timing.generated;
    if (!f.ignore_eos && tokenizer.is_end_of_generation(token)) break;
    MLXN_TRY(const std::string piece, shown.push(token));
    if (!print(piece)) return kFailed;
    if (session.length() == session.context()) {
      if (predict >= 0) complain(fmt::format("stopped: the context of {} positions is full", session.context()));
      break;
    }
  }
  timing.generate = seconds_since(generate_start);
  timing.decoded = timing.generated > 0 ? timing.generated - 1 : 0;  // the prompt's pass gives the first one
  if (!print(shown.flush() + "\n")) return kFailed;
  if (stopped) {
    complain(logits ? fmt::format("interrupted after {} tokens", timing.generated)
                    : fmt::format("interrupted after {} of the prompt's {} tokens", timing.prompt_tokens, count));
  }
  print_summary(timing, model, session, options.sampler.sample.seed);
  if (f.stats) {
    const Counters c = opened.device.counters();
    print_counters(opened.device);
    if (timing.decoded > 1) {
      const auto each = [&](std::uint64_t Counters::*counter) {
        return static_cast<double>(c.*counter - at_first_pass.*counter) / static_cast<double>(timing.decoded - 1);
      };
      show(fmt::format("for each decoded token but the first: submissions {:.2f}, graph launches {:.2f}, dispatches recorded {:.2f}, run {:.2f}; waits {:.2f}; "
                       "allocations {:.2f}\n",
                       each(&Counters::submissions), each(&Counters::graph_launches), each(&Counters::dispatches_encoded),
                       each(&Counters::dispatches_executed), each(&Counters::syncs), each(&Counters::allocations)));
    }
    show(fmt::format("peak resident memory {} bytes\n", peak_resident_bytes()));
  }
  return stopped ? kInterrupted : kOk;
}

}  // namespace

int run_generate(const GenerateFlags& flags) {
  const Result<int> result = detail::guarded([&] { return generate(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
