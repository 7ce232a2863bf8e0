#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/system_memory.h"
#include "cli/model_flags.h"

namespace mlxn::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

volatile sig_atomic_t interrupted = 0;
Session* running_session = nullptr;

/// The first Ctrl-C lets the token or chunk at hand finish; the second ends the program at once.
void on_interrupt(int) {
  interrupted = 1;
  if (running_session != nullptr) running_session->cancel();
  signal(SIGINT, SIG_DFL);
}

Result<void> check(const GenerateFlags& f) {
  const auto bad = [](std::string_view flag, auto value, std::string_view wanted) {
    return make_error(ErrorCode::invalid_argument, "{}: {}, wanted {}", flag, value, wanted);
  };
  if (f.prompt && f.prompt_file) return make_error(ErrorCode::invalid_argument, "-p and -f exclude each other");
  if (f.predict < -1) return bad("-n", f.predict, "a count of tokens, or -1 until the end");
  if (f.context && *f.context < 0) return bad("-c", *f.context, "a count of positions, or 0 for the model's own");
  if (f.batch < 1) return bad("-b", f.batch, "at least 1");
  if (!std::isfinite(f.temperature)) return bad("--temp", f.temperature, "a finite number");
  if (f.repeat_last_n < 0) return bad("--repeat-last-n", f.repeat_last_n, "at least 0");
  if (f.seed < -1) return bad("--seed", f.seed, "a number from 0 on, or -1 for a random one");
  return {};
}

struct Timing {
  double load = 0, prompt = 0, generate = 0, first_token = 0;
  std::size_t prompt_tokens = 0, generated = 0;
};

void print_summary(const Timing& t, const ModelInfo& info, const Session& session, std::uint64_t seed) {
  const auto rate = [](std::size_t tokens, double s) { return s > 0 ? static_cast<double>(tokens) / s : 0.0; };
  const std::size_t decoded = t.generated > 0 ? t.generated - 1 : 0;  // the prompt's pass gives the first one
  std::string text = fmt::format(
      "\nload {:.2f} s ({}{}) | prompt {} tokens, {:.1f} tokens/s | generated {} tokens, {:.2f} tokens/s",
      t.load, human_bytes(info.weight_bytes), info.prepared ? ", prepared" : "", t.prompt_tokens, rate(t.prompt_tokens, t.prompt),
      t.generated, rate(decoded, t.generate));
  if (decoded > 0 && t.generate > 0) {
    text += fmt::format(" ({:.1f} GB/s of weights)", static_cast<double>(info.bytes_per_token) * rate(decoded, t.generate) * 1e-9);
  }
  if (t.generated > 0) text += fmt::format(" | first token after {:.2f} s", t.first_token);
  text += fmt::format(" | {}, seed {}, KV cache {}\n", to_string(session.numerics()), seed, human_bytes(session.kv_bytes()));
  std::fwrite(text.data(), 1, text.size(), stderr);
}

Result<int> generate(const GenerateFlags& f) {
  const auto start = Clock::now();
  MLXN_CHECK(check(f));
  MLXN_TRY(const Numerics numerics, parse_precision(f.model.precision));
  const auto kv_type = parse_dtype(f.kv_type);
  if (!kv_type || (*kv_type != DType::f16 && *kv_type != DType::f32)) {
    return make_error(ErrorCode::invalid_argument, "--kv-type: '{}', wanted f16 or f32", f.kv_type);
  }
  LoadOptions load;
  MLXN_TRY(load.prepare, parse_prepare(f.model.prepare));
  std::string prompt = f.prompt.value_or("");
  if (f.prompt_file) {
    MLXN_TRY(prompt, read_text(*f.prompt_file));
    if (!prompt.empty() && prompt.back() == '\n') prompt.pop_back();  // an editor's last newline is no part of the prompt
  }
  MLXN_TRY(const Device device, open_device(f.model.device, f.model.threads));
  GgufOptions reading;
  if (f.model.no_mmap) reading.source = GgufOptions::Source::copy;
  MLXN_TRY(const GgufFile file, GgufFile::open(f.model.model, reading));
  MLXN_TRY(const Tokenizer tokenizer, Tokenizer::from_gguf(file));

  EncodeOptions encode;
  encode.parse_special = true;
  encode.add_eos = false;
  MLXN_TRY(const std::vector<TokenId> tokens, tokenizer.encode(prompt, encode));
  if (tokens.empty()) {
    return make_error(ErrorCode::invalid_argument, "nothing to start from: no prompt, and the model has no beginning-of-text token");
  }

  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);

  const bool progress = shows_progress();
  load.progress = [&](std::uint64_t done, std::uint64_t all) {
    if (progress) fmt::print(stderr, "\rloading {} of {} ", human_bytes(done), human_bytes(all));
    return interrupted == 0;
  };
  auto loaded = Model::load(file, device, load);
  if (progress) fmt::print(stderr, "\r\033[K");
  if (!loaded) return loaded.error();
  const Model& model = *loaded;
  if (!model.info().prepare_note.empty()) complain(model.info().prepare_note);
  if (tokenizer.vocab_size() != static_cast<std::size_t>(model.info().vocab)) {
    return make_error(ErrorCode::corrupt_file, "{}: the tokenizer has {} tokens, the model {}", file.label(),
                      tokenizer.vocab_size(), model.info().vocab);
  }

  SessionOptions session_options;
  session_options.context = f.context ? *f.context : std::min<std::int64_t>(kDefaultContext, model.info().context);
  session_options.kv_type = *kv_type;
  session_options.batch = f.batch;
  session_options.numerics = numerics;
  const std::int64_t context = session_options.context == 0 ? model.info().context : session_options.context;
  if (static_cast<std::int64_t>(tokens.size()) > context) {
    return make_error(ErrorCode::out_of_range, "the prompt has {} tokens, the context {} (raise it with -c)", tokens.size(), context);
  }
  session_options.batch = std::min<std::int64_t>(f.batch, std::max<std::int64_t>(1, static_cast<std::int64_t>(tokens.size())));
  MLXN_TRY(Session session, Session::create(model, session_options));
  if (session.context() > model.info().context) {
    complain(fmt::format("the context of {} is beyond the {} positions that the model was trained for", session.context(),
                         model.info().context));
  }

  SamplerOptions sampling;
  sampling.sample.temperature = std::max(f.temperature, 0.0f);
  sampling.sample.top_k = f.top_k;
  sampling.sample.top_p = f.top_p;
  sampling.sample.min_p = f.min_p;
  sampling.sample.repetition_penalty = f.repeat_penalty;
  sampling.sample.frequency_penalty = f.frequency_penalty;
  sampling.sample.presence_penalty = f.presence_penalty;
  sampling.sample.seed = f.seed >= 0 ? static_cast<std::uint64_t>(f.seed)
                                     : static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  const bool penalties = f.repeat_penalty != 1.0f || f.frequency_penalty != 0.0f || f.presence_penalty != 0.0f;
  sampling.window = penalties ? std::min(f.repeat_last_n, session.context()) : 0;
  MLXN_TRY(Sampler sampler, Sampler::create(device, model.info().vocab, sampling));
  Timing timing;
  timing.load = seconds_since(start);

  StreamDecoder shown(tokenizer, {});
  if (!f.no_display_prompt) {
    for (const TokenId token : tokens) {
      MLXN_TRY(const std::string piece, shown.push(token));
      if (!print(piece)) return kFailed;
    }
  } else {
    for (const TokenId token : tokens) MLXN_CHECK(shown.push(token));
  }

  running_session = &session;
  const auto prompt_start = Clock::now();
  auto logits = session.append(tokens);
  timing.prompt = seconds_since(prompt_start);
  running_session = nullptr;
  if (!logits && logits.error().code() != ErrorCode::cancelled) return logits.error();
  timing.prompt_tokens = static_cast<std::size_t>(session.length());  // fewer if Ctrl-C stopped it
  for (const TokenId token : tokens) MLXN_CHECK(sampler.accept(token));

  const auto generate_start = Clock::now();
  while (logits && interrupted == 0 && (f.predict < 0 || static_cast<std::int64_t>(timing.generated) < f.predict)) {
    MLXN_TRY(const TokenId token, sampler.next(*logits));
    if (timing.generated == 0) timing.first_token = seconds_since(start);
    ++timing.generated;
    if (!f.ignore_eos && tokenizer.is_end_of_generation(token)) break;
    MLXN_TRY(const std::string piece, shown.push(token));
    if (!print(piece)) return kFailed;
    if (session.length() == session.context()) {
      if (f.predict >= 0) complain(fmt::format("stopped: the context of {} positions is full", session.context()));
      break;
    }
    if (f.predict >= 0 && static_cast<std::int64_t>(timing.generated) == f.predict) break;
    logits = session.append({&token, 1});
    if (!logits) return logits.error();
  }
  timing.generate = seconds_since(generate_start);
  if (!print(shown.flush() + "\n")) return kFailed;
  print_summary(timing, model.info(), session, sampling.sample.seed);
  if (f.stats) {
    const Counters c = device.counters();
    fmt::print(stderr, "dispatches recorded {}, run {}; joins {}; submissions {}; waits {}; allocations {}, peak {}\n",
               c.dispatches_encoded, c.dispatches_executed, c.barriers, c.submissions, c.syncs, c.allocations,
               human_bytes(c.peak_bytes_in_use));
    fmt::print(stderr, "peak resident memory {} bytes\n", peak_resident_bytes());
  }
  return kOk;
}

}  // namespace

int run_generate(const GenerateFlags& flags) {
  const Result<int> result = detail::guarded([&] { return generate(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
