#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/join.h"
#include "cli/model_flags.h"
#include "mlxn/synth.h"

namespace mlxn::cli {
namespace {

using Clock = std::chrono::steady_clock;

volatile sig_atomic_t stop_requested = 0;
void request_stop(int signal) { stop_requested = signal; }

/// A signal that the caller had ignored, as nohup does, stays ignored.
void stop_cleanly_on(int signal) {
  struct sigaction action = {};
  if (sigaction(signal, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) return;
  action = {};
  action.sa_handler = request_stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one ends the program at once
  sigaction(signal, &action, nullptr);
}

Result<SynthModel> choose_model(const SynthFlags& f) {
  SynthModel m;
  if (!f.like.empty()) {
    MLXN_TRY(m, synth_model(f.like));
  }
  if (!f.architecture.empty()) {
    // Another architecture keeps the sizes and brings what belongs to it.
    MLXN_TRY(SynthModel other, synth_architecture(f.architecture));
    other.name = m.name;
    other.layers = m.layers;
    other.embedding = m.embedding;
    other.feed_forward = m.feed_forward;
    other.vocab = m.vocab;
    other.heads = m.heads;
    other.kv_heads = m.kv_heads;
    other.head_dim = m.head_dim;
    other.context = m.context;
    if (f.architecture != m.architecture) m = other;
  } else if (f.like.empty()) {
    return make_error(ErrorCode::invalid_argument, "synth: wanted --like NAME (one of {}) or --arch NAME with sizes",
                      joined(synth_models()));
  }
  struct Size {
    std::string_view flag;
    const std::optional<std::uint64_t>& given;
    std::uint64_t& value;
    bool needed;
  };
  const Size sizes[] = {{"--layers", f.layers, m.layers, true},     {"--embedding", f.embedding, m.embedding, true},
                        {"--heads", f.heads, m.heads, true},        {"--kv-heads", f.kv_heads, m.kv_heads, false},
                        {"--head-dim", f.head_dim, m.head_dim, false}, {"--ffn", f.feed_forward, m.feed_forward, true},
                        {"--vocab", f.vocab, m.vocab, true},        {"--context", f.context, m.context, true},
                        {"--window", f.window, m.window, false}};
  // Head sizes that go with other numbers of heads are not kept.
  if (f.heads && !f.kv_heads) m.kv_heads = 0;
  if ((f.heads || f.embedding) && !f.head_dim) m.head_dim = 0;
  for (const Size& size : sizes) {
    if (size.given) size.value = *size.given;
    if (size.needed && size.value == 0) {
      if (size.given) return make_error(ErrorCode::invalid_argument, "{}: 0, wanted at least 1", size.flag);
      return make_error(ErrorCode::invalid_argument, "synth: {} is missing; without --like all sizes are wanted", size.flag);
    }
  }
  if (f.rope_base) m.rope_base = *f.rope_base;
  if (f.tied && f.untied) return make_error(ErrorCode::invalid_argument, "synth: --tied and --untied exclude each other");
  if (f.tied || f.untied) m.tied = f.tied;
  if (!f.vocabulary.empty()) {
    constexpr SynthVocabulary all[] = {SynthVocabulary::llama, SynthVocabulary::gemma, SynthVocabulary::phi3,
                                       SynthVocabulary::llama3, SynthVocabulary::qwen2};
    const auto at = std::find_if(std::begin(all), std::end(all), [&](SynthVocabulary v) { return to_string(v) == f.vocabulary; });
    if (at == std::end(all)) {
      return make_error(ErrorCode::invalid_argument, "--vocabulary: '{}', wanted llama, gemma, phi3, llama3 or qwen2", f.vocabulary);
    }
    m.vocabulary = *at;
  }
  // A name says what the model is like; with other sizes it is not that model any more.
  if (!f.like.empty()) {
    MLXN_TRY(const SynthModel known, synth_model(f.like));
    if (m != known) m.name = f.like + ", changed,";
  }
  return m;
}

/// Rows of the matrices are whole blocks of the type.
Result<void> check_rows(const SynthModel& m, DType type) {
  const std::uint64_t block = block_elems(type);
  const auto bad = [&](std::string_view flag, std::uint64_t value) {
    return make_error(ErrorCode::invalid_argument, "{}: {}, wanted a multiple of {}, the block of --type {}", flag, value, block, to_string(type));
  };
  if (m.embedding % block != 0) return bad("--embedding", m.embedding);
  if (m.feed_forward % block != 0) return bad("--ffn", m.feed_forward);
  // Products that wrap around are of sizes that the library refuses.
  if (m.head_dim != 0 && m.heads * m.head_dim % block != 0) return bad("--heads times --head-dim", m.heads * m.head_dim);
  return {};
}

Result<int> synth(const SynthFlags& f) {
  MLXN_TRY(const SynthModel model, choose_model(f));
  SynthOptions options;
  MLXN_TRY(options.type, parse_weight_type("--type", f.type, true));
  MLXN_CHECK(check_rows(model, options.type));
  options.seed = f.seed;
  options.threads = f.threads;
  MLXN_TRY(options.write, parse_split(f.split_max_size, f.split_max_tensors));
  const bool progress = shows_progress();
  const auto start = Clock::now();
  auto shown = start;
  options.progress = [&](std::uint64_t done, std::uint64_t all) {
    if (progress && (done == all || Clock::now() - shown > std::chrono::milliseconds(100))) {
      shown = Clock::now();
      show(fmt::format("\r{}", progress_bar(done, all)));
    }
    return stop_requested == 0;
  };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) stop_cleanly_on(signal);
  const auto report = synthesize(f.output, model, options);
  if (progress) show("\r\033[K");
  if (!report && report.error().code() == ErrorCode::cancelled) {
    complain(report.error().message());
    return 128 + static_cast<int>(stop_requested);
  }
  if (!report && report.error().code() == ErrorCode::limit_exceeded && (!f.split_max_size.empty() || f.split_max_tensors != 0)) {
    // What does not fit into parts of these sizes.
    return make_error(ErrorCode::invalid_argument, "{}: {}", f.split_max_size.empty() ? "--split-max-tensors" : "--split-max-size",
                      report.error().message());
  }
  if (!report) return report.error();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (f.json) {
    const nlohmann::ordered_json out = {{"paths", report->paths},
                                        {"architecture", model.architecture},
                                        {"type", to_string(options.type)},
                                        {"seed", options.seed},
                                        {"parameters", report->parameters},
                                        {"tensor_bytes", report->tensor_bytes},
                                        {"file_bytes", report->file_bytes},
                                        {"seconds", seconds}};
    return print(out.dump() + "\n") ? kOk : kFailed;
  }
  std::string text;
  for (const std::string& path : report->paths) text += path + "\n";
  text += fmt::format("{} parameters, {} in {:.1f} s\n", report->parameters, human_bytes(report->file_bytes), seconds);
  return print(text) ? kOk : kFailed;
}

}  // namespace

Result<GgufWriteOptions> parse_split(const std::string& max_size, std::uint64_t max_tensors) {
  GgufWriteOptions options;
  options.split_max_tensors = max_tensors;
  if (max_size.empty()) return options;
  const char* end = max_size.data() + max_size.size();
  const auto [stop, error] = std::from_chars(max_size.data(), end, options.split_max_bytes);
  const std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  const std::uint64_t factor = unit.empty() ? 1 : unit == "M" ? 1'000'000 : unit == "G" ? 1'000'000'000 : 0;
  if (error != std::errc() || factor == 0 || options.split_max_bytes == 0 || options.split_max_bytes > UINT64_MAX / factor) {
    return make_error(ErrorCode::invalid_argument, "--split-max-size: '{}', wanted bytes, or a number with M (10^6) or G (10^9)", max_size);
  }
  options.split_max_bytes *= factor;
  return options;
}

int run_synth(const SynthFlags& flags) {
  const Result<int> result = detail::guarded([&] { return synth(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
