// Parses the command line, calls the library, prints, maps errors to exit codes.

#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <span>
#include <sstream>

#include "cli/commands.h"

namespace mlxn::cli {
namespace {

constexpr const char* kPrecisionText = "auto, exact, f16, bf16 or int8act (auto: int8act on a CPU; bf16 on GPUs only)";

/// Empty if the text is an Integer, else what is wrong with it.
template <class Integer>
std::string check_number(const std::string& text, std::string_view wanted) {
  Integer value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + (text.starts_with('+') ? 1 : 0), end, value);
  if (error == std::errc::result_out_of_range) return text + " is beyond 64 bits";
  return error == std::errc() && stop == end ? "" : fmt::format("{} is no {}", text, wanted);
}
/// The parser would take the nearest number that it can hold for one that it cannot.
const CLI::Validator kInteger([](std::string& text) { return check_number<std::int64_t>(text, "whole number"); }, "");
/// Where there are no negative numbers; the parser would take -1 for 2^64 - 1.
const CLI::Validator kCount([](std::string& text) { return check_number<std::uint64_t>(text, "whole number from 0 on"); }, "");

/// A number that a float holds; the parser would make infinity of a larger one.
const CLI::Validator kNumber(
    [](std::string& text) -> std::string {
      char* end = nullptr;
      const float value = std::strtof(text.c_str(), &end);
      if (text.empty() || *end != '\0') return text + " is no number";
      return std::isfinite(value) ? "" : text + ", wanted a finite number of 32 bits";
    },
    "");

void add_device_flags(CLI::App& command, std::string& device, int& threads) {
  command.add_option("--device", device, "auto, cpu, cuda, cuda:N or metal")->capture_default_str();
  command.add_option("-t,--threads", threads, "CPU threads, 0 for one per physical core")->capture_default_str();
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  command.add_option("-m,--model", flags.model, "GGUF file")->required();
  add_device_flags(command, flags.device, flags.threads);
  command.add_option("--precision", flags.precision, kPrecisionText)->capture_default_str();
  command.add_option("--prepare", flags.prepare, "auto, on or off: lay the weights out for the device at load")->capture_default_str();
  command.add_flag("--no-mmap", flags.no_mmap, "read the file into memory first, for storage that is not trusted");
}

void add_kv_type(CLI::App& command, KvTypeFlags& f) {
  CLI::Option* both = command.add_option("--kv-type", f.both, "f16 or f32 keys and values")->capture_default_str();
  command.add_option("--cache-type-k", f.keys, "the same, as llama.cpp has it; wants --cache-type-v to be equal")->excludes(both);
  command.add_option("--cache-type-v", f.values, "the same, as llama.cpp has it; wants --cache-type-k to be equal")->excludes(both);
}

void add_inference_flags(CLI::App& command, InferenceFlags& f, const char* predict) {
  add_model_flags(command, f.model);
  command.add_option("-n,--predict,--n-predict", f.predict, predict)->check(kInteger)->capture_default_str();
  command.add_option("-c,--ctx-size", f.context, "positions of the context, 0 for the model's own (default 4096 or the model's)")
      ->check(kInteger);
  command.add_option("-b,--batch-size", f.batch, "prompt tokens in one pass")->check(kInteger)->capture_default_str();
  add_kv_type(command, f.kv_type);
  command.add_option("--temp", f.temperature, "temperature, 0 for the most probable token")->check(kNumber)->capture_default_str();
  command.add_option("--top-k", f.top_k, "keep the k most probable, 0 for all")->check(kInteger)->capture_default_str();
  command.add_option("--top-p", f.top_p, "keep the fewest whose probabilities reach p, 1 for all")->check(kNumber)->capture_default_str();
  command.add_option("--min-p", f.min_p, "keep those with p times the greatest probability, 0 for all")->check(kNumber)->capture_default_str();
  command.add_option("--repeat-penalty", f.repeat_penalty, "1 for none")->check(kNumber)->capture_default_str();
  command.add_option("--frequency-penalty", f.frequency_penalty, "0 for none")->check(kNumber)->capture_default_str();
  command.add_option("--presence-penalty", f.presence_penalty, "0 for none")->check(kNumber)->capture_default_str();
  command.add_option("--repeat-last-n", f.repeat_last_n, "recent tokens that penalties look at, -1 for the context")
      ->check(kInteger)
      ->capture_default_str();
  command.add_option("-s,--seed", f.seed, "-1 for a random one")->check(kInteger)->capture_default_str();
}

void add_generate(CLI::App& app, GenerateFlags& f) {
  CLI::App* c = app.add_subcommand("generate", "Generate text from a model");
  add_inference_flags(*c, f.inference, "tokens to generate, -1 until the end");
  c->add_option("-p,--prompt", f.prompt, "text to continue");
  c->add_option("-f,--file", f.prompt_file, "file with the prompt, - for stdin");
  c->add_flag("--ignore-eos", f.ignore_eos, "go on after the end-of-text token");
  c->add_flag("--no-display-prompt", f.no_display_prompt, "print the continuation only");
  c->add_flag("--stats", f.stats, "print the device's counters at the end");
}

void add_chat(CLI::App& app, ChatFlags& f) {
  CLI::App* c = app.add_subcommand("chat", "Talk to a model, one message a line; Ctrl-C stops a reply, Ctrl-D ends");
  add_inference_flags(*c, f.inference, "tokens of a reply at most, -1 until its end");
  c->add_option("--system-prompt", f.system, "what the model is told before the conversation");
  c->add_option("-p,--prompt", f.prompt, "the first message");
  c->add_option("--template,--chat-template", f.template_name, "template of the conversation instead of the file's: chatml, llama3, ...");
  c->add_flag("--stats", f.stats, "print the device's counters at the end");
}

void add_perplexity(CLI::App& app, PerplexityFlags& f) {
  CLI::App* c = app.add_subcommand("perplexity", "Measure how well a model predicts a text");
  add_model_flags(*c, f.model);
  c->add_option("-f,--file", f.file, "the text, - for stdin")->required();
  c->add_option("-c,--ctx-size", f.context, "tokens of a chunk, the second half of which is scored")->check(kInteger)->capture_default_str();
  c->add_option("--chunks", f.chunks, "chunks to measure, -1 for all")->check(kInteger)->capture_default_str();
  c->add_option("-b,--batch-size", f.batch, "tokens in one pass")->check(kInteger)->capture_default_str();
  add_kv_type(*c, f.kv_type);
  c->add_flag("--json", f.json, "machine-readable output");
}

void add_inspect(CLI::App& app, InspectFlags& f) {
  CLI::App* c = app.add_subcommand("inspect", "Show a file's metadata and tensors");
  c->add_option("-m,--model", f.model, "GGUF file")->required();
  c->add_flag("--tensors", f.tensors, "list the tensors");
  c->add_flag("--check", f.check, "read all weights and look for scales that are no numbers");
  c->add_flag("--json", f.json, "machine-readable output");
}

void add_tokenize(CLI::App& app, TokenizeFlags& f) {
  CLI::App* c = app.add_subcommand("tokenize", "Turn text into a model's tokens");
  c->add_option("-m,--model", f.model, "GGUF file")->required();
  c->add_option("-p,--prompt", f.prompt, "the text");
  c->add_option("-f,--file", f.prompt_file, "file with the text, - for stdin");
  c->add_flag("--no-bos", f.no_bos, "without the beginning-of-text token");
  c->add_flag("--no-parse-special", f.no_parse_special, "texts of control tokens are plain text");
  CLI::Option* ids = c->add_flag("--ids", f.ids, "print [1, 2, 3] alone");
  c->add_flag("--json", f.json, "machine-readable output")->excludes(ids);
  c->add_flag("--stats", f.stats, "print the time it took at the end");
}

void add_synth(CLI::App& app, SynthFlags& f) {
  CLI::App* c = app.add_subcommand("synth", "Write a model of any size with random weights, for measurements");
  c->add_option("-o,--output", f.output, "GGUF file to write")->required();
  c->add_option("--like", f.like, "a known model: llama3-8b, llama3-70b, llama3.2-1b, qwen2.5-7b, qwen3-8b, gemma3-4b, tiny, ...");
  c->add_option("--arch", f.architecture, "llama, qwen2, qwen3, gemma2, gemma3 or phi3");
  c->add_option("--type", f.type, "type of all matrices")->capture_default_str();
  // Sizes: each replaces the known model's.
  c->add_option("--layers", f.layers, "blocks")->check(kCount);
  c->add_option("--embedding", f.embedding, "width of the model")->check(kCount);
  c->add_option("--heads", f.heads, "query heads")->check(kCount);
  c->add_option("--kv-heads", f.kv_heads, "key and value heads (default: as many as query heads)")->check(kCount);
  c->add_option("--head-dim", f.head_dim, "width of a head (default: embedding / heads)")->check(kCount);
  c->add_option("--ffn", f.feed_forward, "width of the feed-forward layers")->check(kCount);
  c->add_option("--vocab", f.vocab, "tokens")->check(kCount);
  c->add_option("--context", f.context, "positions")->check(kCount);
  c->add_option("--window", f.window, "positions of a sliding window, 0 for none")->check(kCount);
  c->add_option("--rope-base", f.rope_base, "base of the rotary frequencies")->check(kNumber);
  c->add_flag("--tied", f.tied, "the embedding serves as output matrix");
  c->add_flag("--untied", f.untied, "an output matrix of its own");
  c->add_option("--vocabulary", f.vocabulary, "kind of tokenizer: llama, gemma, phi3, llama3 or qwen2");
  c->add_option("-s,--seed", f.seed, "the same seed gives the same file")->check(kCount)->capture_default_str();
  c->add_option("-t,--threads", f.threads, "0 for one per core")->check(kInteger)->capture_default_str();
  c->add_option("--split-max-size", f.split_max_size, "write parts of at most so many bytes: 500M, 2G");
  c->add_option("--split-max-tensors", f.split_max_tensors, "write parts of at most so many tensors")->check(kCount);
  c->add_flag("--json", f.json, "machine-readable output");
}

void add_bench_model(CLI::App& bench, BenchModelFlags& f) {
  CLI::App* c = bench.add_subcommand("model", "A model's speed with prompts and in generation, as llama-bench measures it");
  c->add_option("-m,--model", f.models, "GGUF files")->required();
  const auto numbers = [&](const char* flag, std::vector<std::int64_t>& to, const char* text) {
    c->add_option(flag, to, text)->delimiter(',')->check(kInteger)->capture_default_str();
  };
  numbers("-p,--n-prompt", f.prompt, "tokens of a prompt, comma separated; 0 for none");
  numbers("-n,--n-gen", f.predict, "tokens to generate, comma separated; 0 for none");
  numbers("-d,--n-depth", f.depth, "positions that are filled before, comma separated");
  c->add_option("-t,--threads", f.threads, "CPU threads, comma separated; 0 for one per physical core")
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("-r,--repetitions", f.reps, "runs of each test")->check(kInteger)->capture_default_str();
  c->add_option("-b,--batch-size", f.batch, "prompt tokens in one pass")->check(kInteger)->capture_default_str();
  c->add_option("--device", f.device, "auto, cpu, cuda, cuda:N or metal")->capture_default_str();
  c->add_option("--precision", f.precision, kPrecisionText)->capture_default_str();
  c->add_option("--prepare", f.prepare, "auto, on or off: lay the weights out for the device at load")->capture_default_str();
  c->add_option("--kv-type", f.kv_type, "f16 or f32 keys and values")->capture_default_str();
  CLI::Option* output = c->add_option("-o,--output", f.output, "md, csv or json (one object a line)")->capture_default_str();
  c->add_flag("--json", f.json, "the same as -o json")->excludes(output);
}

void add_bench(CLI::App& app, BenchMatmulFlags& m, BenchCeilingsFlags& ceilings, BenchModelFlags& model) {
  CLI::App* bench = app.add_subcommand("bench", "Measure this machine and the library on it");
  bench->require_subcommand(0, 1);
  bench->add_flag("--explain", m.explain, "measure nothing: which implementation every operation takes here, and why");
  CLI::App* c = bench->add_subcommand("matmul", "Matrix products, with their share of the ceiling measured in the same run");
  c->add_option("--type", m.types, "weight types, comma separated")->delimiter(',')->capture_default_str();
  c->add_option("--shape", m.shapes, "NxK, comma separated")->delimiter(',')->capture_default_str();
  c->add_option("--m", m.rows, "rows of activations, comma separated")
      ->delimiter(',')
      ->check(kInteger)
      ->capture_default_str();
  add_device_flags(*c, m.device, m.threads);
  c->add_option("--precision", m.precision, kPrecisionText)->capture_default_str();
  c->add_option("--door", m.door, "prepared or raw weights")->capture_default_str();
  c->add_option("--route", m.route, "auto, vector or tile")->capture_default_str();
  c->add_option("--x", m.x, "f32, f16 or bf16 activations")->capture_default_str();
  c->add_option("--y", m.y, "f32, f16 or bf16 results")->capture_default_str();
  c->add_option("--early-starts", m.early_starts, "on or off: CUDA kernels that can start before the one in front of them ends")
      ->capture_default_str();
  c->add_flag("--batch-invariant", m.batch_invariant, "a row's result is the same bits whatever M is");
  c->add_option("--seconds", m.seconds, "time per case")->check(kNumber)->capture_default_str();
  c->add_flag("--explain", m.explain, "measure nothing: which kernel each case takes here, and why");
  c->add_flag("--json", m.json, "one object a line; nmse: of up to 512 results all over y, against float64 products");
  add_bench_model(*bench, model);
  c = bench->add_subcommand("ceilings", "Read bandwidth, arithmetic peaks and the cost of a dispatch");
  add_device_flags(*c, ceilings.device, ceilings.threads);
  c->add_flag("--json", ceilings.json, "one object a line");
}

/// The command that the line names, or the program itself, and the arguments after its name.
struct Named {
  const CLI::App* command;
  std::string name;  // "mlxn bench matmul"
  std::span<const std::string> rest;
};

/// Nothing if a word stands where a command should, which is said. The parser would let --help pass over it.
std::optional<Named> find_command(const CLI::App& app, std::span<const std::string> arguments) {
  Named named{&app, app.get_name(), arguments};
  while (!named.rest.empty() && !named.rest.front().starts_with('-')) {
    const std::vector<const CLI::App*> commands = named.command->get_subcommands(nullptr);
    if (commands.empty()) break;
    const std::string& word = named.rest.front();
    const auto next = std::find_if(commands.begin(), commands.end(), [&](const CLI::App* c) { return c->get_name() == word; });
    if (next == commands.end()) {
      complain(fmt::format("unknown command '{}' ({} --help shows the commands)", word, named.name));
      return std::nullopt;
    }
    named = {*next, named.name + " " + word, named.rest.subspan(1)};
  }
  return named;
}

/// Whether "-ngl" could be meant: letters that one dash stands before, and nothing that is a value such as the 5 of "-n5".
bool looks_like_flag(std::string_view argument) {
  const auto is_letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
  return argument.size() > 2 && argument[0] == '-' && is_letter(argument[1]) && is_letter(argument[2]) &&
         std::all_of(argument.begin() + 3, argument.end(), [&](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_'; });
}

/// Flags have one letter behind one dash. Other programs' longer ones, as -ngl, would be taken for a letter's flag with its value,
/// and something else blamed. Empty if there is none.
std::string find_foreign_flag(const Named& named) {
  for (std::size_t i = 0; i < named.rest.size(); ++i) {
    const std::string& argument = named.rest[i];
    if (argument == "--") return {};
    if (looks_like_flag(argument)) return argument;
    // What follows a flag that takes a value is one, whatever it looks like.
    if (!argument.starts_with('-') || argument.find('=') != std::string::npos) continue;
    const CLI::Option* option = named.command->get_option_no_throw(argument);
    if (option != nullptr && option->get_items_expected_min() > 0) ++i;
  }
  return {};
}

/// `help COMMAND` and `version`, as the flags that they are.
std::vector<std::string> read_arguments(int argc, char** argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.empty()) return arguments;
  if (arguments[0] == "version") arguments[0] = "--version";
  if (arguments[0] == "help") {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  }
  return arguments;
}

int run(int argc, char** argv) {
  CLI::App app("Quantised LLM inference on GGUF files.", "mlxn");
  app.require_subcommand(1);
  app.footer("Exit codes: 0 success, 1 the work failed, 2 bad usage, 130 interrupted by Ctrl-C.");
  app.set_version_flag("--version", MLXN_VERSION);
  GenerateFlags generate;
  ChatFlags chat;
  PerplexityFlags perplexity;
  InspectFlags inspect;
  TokenizeFlags tokenize;
  DevicesFlags devices;
  SynthFlags synth;
  BenchMatmulFlags bench_matmul;
  BenchCeilingsFlags bench_ceilings;
  BenchModelFlags bench_model;
  add_generate(app, generate);
  add_chat(app, chat);
  add_perplexity(app, perplexity);
  add_inspect(app, inspect);
  add_tokenize(app, tokenize);
  add_synth(app, synth);
  app.add_subcommand("devices", "List the devices of this machine")->add_flag("--json", devices.json, "machine-readable output");
  add_bench(app, bench_matmul, bench_ceilings, bench_model);
  std::vector<std::string> arguments = read_arguments(argc, argv);
  const std::optional<Named> named = find_command(app, arguments);
  if (!named) return kBadUsage;
  if (const std::string flag = find_foreign_flag(*named); !flag.empty()) {
    complain(fmt::format("unknown flag {} ({} --help shows the flags)", flag, named->name));
    return kBadUsage;
  }
  try {
    std::reverse(arguments.begin(), arguments.end());  // as the parser wants them
    app.parse(arguments);
  } catch (const CLI::Success& e) {
    std::ostringstream text;  // --help, --version
    app.exit(e, text, text);
    return print(text.str()) ? kOk : kFailed;
  } catch (const CLI::ParseError& e) {
    // What was not understood is the likelier cause of what seems to be missing.
    const std::vector<std::string> unknown = app.remaining(true);
    const std::string cause = unknown.empty() ? e.what() : "unknown command or flag '" + unknown.front() + "'";
    complain(cause + " (mlxn --help shows the commands)");
    return kBadUsage;
  }
  if (app.got_subcommand("generate")) return run_generate(generate);
  if (app.got_subcommand("chat")) return run_chat(chat);
  if (app.got_subcommand("perplexity")) return run_perplexity(perplexity);
  if (app.got_subcommand("inspect")) return run_inspect(inspect);
  if (app.got_subcommand("tokenize")) return run_tokenize(tokenize);
  if (app.got_subcommand("synth")) return run_synth(synth);
  if (app.got_subcommand("devices")) return run_devices(devices);
  const CLI::App* bench = app.get_subcommand("bench");
  if (bench->got_subcommand("model")) return run_bench_model(bench_model);
  if (bench->got_subcommand("ceilings")) return run_bench_ceilings(bench_ceilings);
  if (bench->got_subcommand("matmul")) return run_bench_matmul(bench_matmul);
  if (bench_matmul.explain) return run_bench_explain(bench_matmul);
  complain("bench: wanted matmul, model, ceilings or --explain (mlxn bench --help shows them)");
  return kBadUsage;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  keep_standard_descriptors();
  signal(SIGPIPE, SIG_IGN);  // a closed stdout shows as a failed write
  signal(SIGXFSZ, SIG_IGN);  // and so does the limit of ulimit -f: what is half written is removed
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    complain(e.what());
    return kFailed;
  }
}

}  // namespace mlxn::cli
