#include "cli/inference.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "cli/model_flags.h"

namespace mlxn::cli {
namespace {

volatile sig_atomic_t interrupt_seen = 0;
volatile sig_atomic_t ends_at_second = 0;
volatile sig_atomic_t chunks_run = 0;
Session* volatile running_session = nullptr;

/// To stderr, from a signal handler: no buffers, no locks.
template <std::size_t kBytes>
void write_at_once(const char (&text)[kBytes]) {
  if (write(STDERR_FILENO, text, kBytes - 1) < 0) return;  // what cannot be written is lost
}

/// Lets the token or chunk at hand finish.
void on_interrupt(int) {
  const int error = errno;
  const bool first = interrupt_seen == 0;
  interrupt_seen = 1;
  Session* const session = running_session;
  if (session != nullptr) session->cancel();
  if (ends_at_second != 0) signal(SIGINT, SIG_DFL);
  if (chunks_run != 0 && first) {
    if (ends_at_second != 0) {
      write_at_once("mlxn: stopping after the current chunk; Ctrl-C again ends at once\n");
    } else {
      write_at_once("mlxn: stopping after the current chunk\n");
    }
  }
  errno = error;
}

void end_at_interrupt(int) {
  write_at_once("mlxn: interrupted\n");
  _exit(kInterrupted);
}

Result<void> check(const InferenceFlags& f) {
  const auto bad = [](std::string_view flag, auto value, std::string_view wanted) {
    return make_error(ErrorCode::invalid_argument, "{}: {}, wanted {}", flag, value, wanted);
  };
  if (f.predict < -1) return bad("-n", f.predict, "a count of tokens, or -1 until the end");
  if (f.context && *f.context < 0) return bad("-c", *f.context, "a count of positions, or 0 for the model's own");
  if (f.batch < 1) return bad("-b", f.batch, "at least 1");
  if (!std::isfinite(f.temperature)) return bad("--temp", f.temperature, "a finite number");
  if (f.repeat_last_n < -1) return bad("--repeat-last-n", f.repeat_last_n, "a count of tokens, or -1 for the context");
  if (f.seed < -1) return bad("--seed", f.seed, "a number from 0 on, or -1 for a random one");
  return {};
}

}  // namespace

void catch_interrupts(OnInterrupt what) {
  ends_at_second = what == OnInterrupt::stop_once ? 1 : 0;
  struct sigaction action = {};  // without SA_RESTART: reading a line ends, too
  action.sa_handler = what == OnInterrupt::end ? end_at_interrupt : on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}
bool interrupted() noexcept { return interrupt_seen != 0; }
void clear_interrupt() noexcept { interrupt_seen = 0; }

ChunksRun::ChunksRun(Session* cancelled) noexcept {
  running_session = cancelled;
  chunks_run = 1;
}
ChunksRun::~ChunksRun() {
  chunks_run = 0;
  running_session = nullptr;
}

Result<InferenceOptions> read_flags(const InferenceFlags& f) {
  MLXN_CHECK(check(f));
  InferenceOptions out;
  MLXN_TRY(out.session.numerics, parse_precision(f.model.precision));
  MLXN_TRY(out.session.kv_type, parse_kv_type(f.kv_type));
  out.session.batch = f.batch;
  MLXN_TRY(out.load.prepare, parse_prepare(f.model.prepare));

  SampleOptions& sample = out.sampler.sample;
  sample.temperature = std::max(f.temperature, 0.0f);
  sample.top_k = f.top_k;
  sample.top_p = f.top_p;
  sample.min_p = f.min_p;
  sample.repetition_penalty = f.repeat_penalty;
  sample.frequency_penalty = f.frequency_penalty;
  sample.presence_penalty = f.presence_penalty;
  sample.seed = f.seed >= 0 ? static_cast<std::uint64_t>(f.seed)
                            : static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  const bool penalties = f.repeat_penalty != 1.0f || f.frequency_penalty != 0.0f || f.presence_penalty != 0.0f;
  // make_sampler() cuts it to the context.
  out.sampler.window = !penalties ? 0 : f.repeat_last_n == -1 ? INT64_MAX : f.repeat_last_n;
  return out;
}

Result<OpenedFile> open_file(const ModelFlags& flags) {
  MLXN_TRY(const Numerics numerics, parse_precision(flags.precision));
  MLXN_TRY(Device device, open_device(flags.device, flags.threads));
  say_choice(device);
  GgufOptions reading;
  if (flags.no_mmap) reading.source = GgufOptions::Source::copy;
  MLXN_TRY(GgufFile file, GgufFile::open(flags.model, reading));
  MLXN_CHECK(check_precision(device, file, numerics));
  MLXN_TRY(Tokenizer tokenizer, Tokenizer::from_gguf(file));
  return OpenedFile{std::move(device), std::move(file), std::move(tokenizer)};
}

Result<Model> load_model(const OpenedFile& opened, const LoadOptions& options) {
  const bool progress = shows_progress();
  LoadOptions load = options;
  load.progress = [progress](std::uint64_t done, std::uint64_t all) {
    if (progress) show(fmt::format("\rloading {} of {} ", human_bytes(done), human_bytes(all)));
    return !interrupted();
  };
  auto loaded = Model::load(opened.file, opened.device, load);
  if (progress) show("\r\033[K");
  if (!loaded && loaded.error().code() == ErrorCode::cancelled) return make_error(ErrorCode::cancelled, "interrupted while loading the model");
  if (!loaded) return loaded.error();
  const ModelInfo& info = loaded->info();
  if (!info.prepare_note.empty()) complain(info.prepare_note);
  if (opened.tokenizer.vocab_size() != static_cast<std::size_t>(info.vocab)) {
    return make_error(ErrorCode::corrupt_file, "{}: the tokenizer has {} tokens, the model {}", opened.file.label(),
                      opened.tokenizer.vocab_size(), info.vocab);
  }
  return loaded;
}

std::int64_t context_of(const InferenceFlags& flags, const Model& model) {
  if (!flags.context) return std::min<std::int64_t>(kDefaultContext, model.info().context);
  return *flags.context == 0 ? model.info().context : *flags.context;
}

Result<Session> make_session(const Model& model, const InferenceFlags& flags, SessionOptions options) {
  options.context = context_of(flags, model);
  MLXN_TRY(Session session, Session::create(model, options));
  if (session.context() > model.info().context) {
    complain(fmt::format("the context of {} is beyond the {} positions that the model was trained for", session.context(),
                         model.info().context));
  }
  return session;
}

Result<Sampler> make_sampler(const Model& model, const Session& session, const SamplerOptions& options) {
  SamplerOptions bounded = options;
  bounded.window = std::min(options.window, session.context());
  return Sampler::create(model.device(), model.info().vocab, bounded);
}

Result<Tensor> append_prompt(Session& session, std::span<const TokenId> tokens) {
  if (interrupted()) return Error(ErrorCode::cancelled);
  const ChunksRun running(&session);
  if (interrupted()) session.cancel();  // it came between the two lines before
  return session.append(tokens);
}

void print_counters(const Device& device) {
  const Counters c = device.counters();
  show(fmt::format("dispatches recorded {}, run {}; joins {}; submissions {}, of those {} as one launch of a GPU's graph; waits {}; allocations {}, peak {}\n",
                   c.dispatches_encoded, c.dispatches_executed, c.barriers, c.submissions, c.graph_launches, c.syncs, c.allocations,
                   human_bytes(c.peak_bytes_in_use)));
}

void print_summary(const Timing& t, const Model& model, const Session& session, std::uint64_t seed) {
  const ModelInfo& info = model.info();
  const auto rate = [](std::size_t tokens, double s) { return s > 0 ? static_cast<double>(tokens) / s : 0.0; };
  std::string text = fmt::format(
      "\nload {:.2f} s ({}{}) | prompt {} tokens, {:.1f} tokens/s | generated {} tokens, {:.2f} tokens/s",
      t.load, human_bytes(info.weight_bytes), info.prepared ? ", prepared" : "", t.prompt_tokens, rate(t.prompt_tokens, t.prompt),
      t.generated, rate(t.decoded, t.generate));
  if (t.decoded > 0 && t.generate > 0) {
    text += fmt::format(" ({:.1f} GB/s of weights)", static_cast<double>(info.bytes_per_token) * rate(t.decoded, t.generate) * 1e-9);
  }
  if (t.generated > 0) text += fmt::format(" | first token after {:.2f} s", t.first_token);
  text += fmt::format(" | {} {}, seed {}, KV cache {}\n", model.device().capabilities().id, to_string(session.numerics()), seed,
                      human_bytes(session.kv_bytes()));
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace mlxn::cli
