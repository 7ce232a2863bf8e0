#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "cli/model_flags.h"
#include "graph/ceilings.h"

namespace mlxn::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// A prompt or a generation after `depth` positions; one of prompt and predict is zero.
struct Test {
  std::int64_t prompt = 0, predict = 0, depth = 0;
  [[nodiscard]] std::int64_t tokens() const noexcept { return prompt + predict; }
  [[nodiscard]] std::string name() const {
    const std::string what = prompt > 0 ? fmt::format("pp{}", prompt) : fmt::format("tg{}", predict);
    return depth > 0 ? fmt::format("{} @ d{}", what, depth) : what;
  }
};

struct Speed {
  std::vector<double> rates;  // tokens per second of each run
  double mean = 0, deviation = 0;
  double read_gbps = 0;  // the median bandwidth between them
};

/// What stands in every row of one file.
struct Subject {
  std::string label;  // "llama 1.2B q4_0"
  std::string path;
  std::uint64_t bytes = 0, parameters = 0;
};

std::string in_thousands(std::uint64_t count) {
  const auto n = static_cast<double>(count);
  return n >= 1e9 ? fmt::format("{:.2f} B", n * 1e-9) : n >= 1e6 ? fmt::format("{:.2f} M", n * 1e-6) : fmt::format("{:.2f} K", n * 1e-3);
}

Subject describe(const GgufFile& file, const std::string& path) {
  Subject subject;
  subject.path = path;
  std::map<std::string, std::uint64_t> bytes_by_type;
  for (const GgufTensor& t : file.tensors()) {
    subject.bytes += t.bytes;
    subject.parameters += t.elems;
    bytes_by_type[type_name(t)] += t.bytes;
  }
  const auto most = std::max_element(bytes_by_type.begin(), bytes_by_type.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto n = static_cast<double>(subject.parameters);
  const std::string size = n >= 1e9 ? fmt::format("{:.1f}B", n * 1e-9) : fmt::format("{:.1f}M", n * 1e-6);
  const auto architecture = file.get_string("general.architecture");
  subject.label = fmt::format("{} {} {}", architecture ? *architecture : "?", size, most == bytes_by_type.end() ? "?" : most->first);
  return subject;
}

/// Tokens that nobody would write: the time does not depend on them.
std::vector<TokenId> random_tokens(std::int64_t count, std::int64_t vocab) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(count));
  std::uint64_t state = 1;
  for (TokenId& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<TokenId>((state >> 33) % static_cast<std::uint64_t>(vocab));
  }
  return tokens;
}

class Runner {
 public:
  Runner(const Model& model, const SessionOptions& options, std::int64_t reps, ReadProbe& probe)
      : model_(model), options_(options), reps_(reps), probe_(probe) {}

  Result<Speed> run(const Test& test) {
    options_.context = test.depth + test.tokens();
    options_.batch = std::min(options_.batch, options_.context);
    MLXN_TRY(Session session, Session::create(model_, options_));
    numerics_ = session.numerics();
    const std::int64_t vocab = model_.info().vocab;
    if (test.depth > 0) MLXN_CHECK(session.append(random_tokens(test.depth, vocab)));
    const std::vector<TokenId> tokens = random_tokens(test.tokens(), vocab);
    // Once without a clock: pages are touched, graphs recorded.
    MLXN_CHECK(session.append(std::span(tokens).first(test.prompt > 0 ? tokens.size() : 1)));
    Speed speed;
    std::vector<double> reads;
    for (std::int64_t rep = 0; rep < reps_; ++rep) {
      if (shows_progress()) show(fmt::format("\r\033[K{}: run {} of {}", test.name(), rep + 1, reps_));
      MLXN_CHECK(session.truncate(test.depth));
      const auto seconds = test.prompt > 0 ? time_prompt(session, tokens) : time_generation(session, tokens, reads);
      if (!seconds) return seconds.error();
      speed.rates.push_back(static_cast<double>(tokens.size()) / *seconds);
      MLXN_CHECK(probe(reads));
    }
    if (shows_progress()) show("\r\033[K");
    const auto count = static_cast<double>(speed.rates.size());
    for (const double rate : speed.rates) speed.mean += rate / count;
    for (const double rate : speed.rates) speed.deviation += (rate - speed.mean) * (rate - speed.mean);
    speed.deviation = count > 1 ? std::sqrt(speed.deviation / (count - 1)) : 0;
    std::nth_element(reads.begin(), reads.begin() + static_cast<std::ptrdiff_t>(reads.size() / 2), reads.end());
    speed.read_gbps = reads[reads.size() / 2];
    return speed;
  }
  [[nodiscard]] Numerics numerics() const noexcept { return numerics_; }

 private:
  static double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

  static Result<double> time_prompt(Session& session, std::span<const TokenId> tokens) {
    const auto begin = Clock::now();
    MLXN_CHECK(session.append(tokens));
    return seconds_since(begin);
  }

  /// One token at a time. A shared machine's bandwidth moves from second to second, so passes of the probe lie between the
  /// tokens, outside the clock; not for a model that lives in a cache, which they would empty.
  Result<double> time_generation(Session& session, std::span<const TokenId> tokens, std::vector<double>& reads) {
    constexpr std::size_t kSlice = 16;
    const bool interleave = model_.info().bytes_per_token > 4 * model_.device().capabilities().last_level_cache_bytes;
    double seconds = 0;
    for (std::size_t at = 0; at < tokens.size(); at += kSlice) {
      const auto begin = Clock::now();
      for (std::size_t i = at; i < std::min(at + kSlice, tokens.size()); ++i) MLXN_CHECK(session.append(tokens.subspan(i, 1)));
      seconds += seconds_since(begin);
      if (interleave) MLXN_CHECK(probe(reads));
    }
    return seconds;
  }

  Result<void> probe(std::vector<double>& reads) {
    MLXN_TRY(const double gbps, probe_.gbps());
    reads.push_back(gbps);
    return {};
  }

  const Model& model_;
  SessionOptions options_;
  std::int64_t reps_;
  ReadProbe& probe_;
  Numerics numerics_ = Numerics::automatic;
};

enum class Output : std::uint8_t { md, csv, json };

std::string csv_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

std::string header(Output output) {
  switch (output) {
    case Output::md:
      return fmt::format("| {:<24} | {:>10} | {:>9} | {:7} | {:>7} | {:8} | {:>16} | {:>18} | {:>6} | {:>16} |\n", "model", "size", "params",
                         "backend", "threads", "class", "test", "t/s", "GB/s", "share of ceiling") +
             "| :----------------------- | ---------: | --------: | :------ | ------: | :------- | ---------------: | "
             "-----------------: | -----: | ---------------: |\n";
    case Output::csv:
      return "model,file,size_bytes,parameters,backend,device,threads,class,n_prompt,n_gen,n_depth,reps,test,avg_ts,stddev_ts,gbps,ceiling_gbps,share\n";
    case Output::json: return {};
  }
  return {};
}

std::string row(Output output, const Subject& s, const Model& model, Numerics numerics, const Test& test, const Speed& speed) {
  const Capabilities c = model.device().capabilities();
  // Weights are read once a token in generation; with a prompt arithmetic is the limit.
  const bool reads = test.predict > 0;
  const double gbps = static_cast<double>(model.info().bytes_per_token) * speed.mean * 1e-9, share = gbps / speed.read_gbps;
  switch (output) {
    case Output::md:
      return fmt::format("| {:<24} | {:>10} | {:>9} | {:7} | {:>7} | {:8} | {:>16} | {:>18} | {:>6} | {:>16} |\n", s.label,
                         human_bytes(s.bytes), in_thousands(s.parameters), c.backend, c.threads, to_string(numerics), test.name(),
                         fmt::format("{:.2f} ± {:.2f}", speed.mean, speed.deviation), reads ? fmt::format("{:.1f}", gbps) : "",
                         reads ? fmt::format("{:.0f} % of {:.1f}", share * 100, speed.read_gbps) : "");
    case Output::csv:
      return fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{:.4f},{:.4f},{},{},{}\n", csv_text(s.label), csv_text(s.path), s.bytes,
                         s.parameters, c.backend, csv_text(c.name), c.threads, to_string(numerics), test.prompt, test.predict, test.depth,
                         speed.rates.size(), csv_text(test.name()), speed.mean, speed.deviation, reads ? fmt::format("{:.3f}", gbps) : "",
                         reads ? fmt::format("{:.3f}", speed.read_gbps) : "", reads ? fmt::format("{:.4f}", share) : "");
    case Output::json: {
      nlohmann::ordered_json out = {{"op", "model"},
                                    {"model", s.label},
                                    {"file", s.path},
                                    {"size_bytes", s.bytes},
                                    {"parameters", s.parameters},
                                    {"backend", c.backend},
                                    {"device", c.name},
                                    {"threads", c.threads},
                                    {"class", to_string(numerics)},
                                    {"prepared", model.info().prepared},
                                    {"test", test.name()},
                                    {"n_prompt", test.prompt},
                                    {"n_gen", test.predict},
                                    {"n_depth", test.depth},
                                    {"avg_ts", speed.mean},
                                    {"stddev_ts", speed.deviation},
                                    {"samples_ts", speed.rates}};
      if (reads) {
        out["gbps"] = gbps;
        out["ceiling"] = speed.read_gbps;
        out["share"] = share;
      }
      return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    }
  }
  return {};
}

/// Tests in the order of their flags: for every depth the prompts, then the generations.
Result<std::vector<Test>> make_tests(const BenchModelFlags& f) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  const std::pair<const char*, const std::vector<std::int64_t>&> lists[] = {{"-p", f.prompt}, {"-n", f.predict}, {"-d", f.depth}};
  for (const auto& [flag, values] : lists) {
    for (const std::int64_t v : values) {
      if (v < 0 || v > kMost) return make_error(ErrorCode::invalid_argument, "{}: {}, wanted 0 to {}", flag, v, kMost);
    }
  }
  std::vector<Test> tests;
  for (const std::int64_t depth : f.depth) {
    for (const std::int64_t p : f.prompt) {
      if (p > 0) tests.push_back({p, 0, depth});
    }
    for (const std::int64_t n : f.predict) {
      if (n > 0) tests.push_back({0, n, depth});
    }
  }
  if (tests.empty()) return make_error(ErrorCode::invalid_argument, "nothing to measure: -p and -n are 0");
  return tests;
}

Result<int> bench(const BenchModelFlags& f) {
  MLXN_TRY(const std::vector<Test> tests, make_tests(f));
  Output output = Output::json;
  if (!f.json) {
    if (f.output == "md") output = Output::md;
    else if (f.output == "csv") output = Output::csv;
    else if (f.output != "json") return make_error(ErrorCode::invalid_argument, "-o: '{}', wanted md, csv or json", f.output);
  }
  if (f.reps < 1 || f.reps > 10'000) return make_error(ErrorCode::invalid_argument, "-r: {}, wanted 1 to 10000", f.reps);
  if (f.batch < 1) return make_error(ErrorCode::invalid_argument, "-b: {}, wanted at least 1", f.batch);
  SessionOptions options;
  options.batch = f.batch;
  MLXN_TRY(options.numerics, parse_precision(f.precision));
  MLXN_TRY(options.kv_type, parse_kv_type(f.kv_type));
  LoadOptions load;
  MLXN_TRY(load.prepare, parse_prepare(f.prepare));
  for (const int threads : f.threads) MLXN_CHECK(open_device(f.device, threads));  // bad numbers before long work

  bool titled = false;
  for (const std::string& path : f.models) {
    MLXN_TRY(const GgufFile file, GgufFile::open(path));
    const Subject subject = describe(file, path);
    for (const int threads : f.threads) {
      MLXN_TRY(const Device device, open_device(f.device, threads));
      MLXN_CHECK(check_precision(device, file, options.numerics));
      MLXN_TRY(const Model model, Model::load(file, device, load));
      if (!model.info().prepare_note.empty()) complain(model.info().prepare_note);
      MLXN_TRY(ReadProbe probe, ReadProbe::make(device));
      for (const Test& test : tests) {
        Runner runner(model, options, f.reps, probe);
        MLXN_TRY(const Speed speed, runner.run(test));
        if (!titled && !print(header(output))) return kFailed;
        titled = true;
        if (!print(row(output, subject, model, runner.numerics(), test, speed))) return kFailed;
      }
    }
  }
  return kOk;
}

}  // namespace

int run_bench_model(const BenchModelFlags& flags) {
  const Result<int> result = detail::guarded([&] { return bench(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
