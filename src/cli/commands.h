#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/gguf_writer.h"
#include "mlxn/result.h"

namespace mlxn::cli {

/// Exit codes of the program.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;    ///< the work failed
inline constexpr int kBadUsage = 2;  ///< the command line cannot be followed
inline constexpr int kInterrupted = 130;  ///< Ctrl-C stopped the work, as shells have it: 128 and the signal's number

/// The program mlxn; argv[0] is its name. Returns the exit code.
[[nodiscard]] int run_command_line(int argc, char** argv);

/// Keeps files off the numbers of stdin, stdout and stderr where the caller closed them: what is printed would go into a file.
void keep_standard_descriptors();
/// Writes results to stdout. False once stdout is closed or full, which it has told stderr, but for a pipe that nobody reads any
/// more: the command then ends with kFailed and needs no word of its own.
[[nodiscard]] bool print(std::string_view text);
/// Writes one line "mlxn: TEXT" to stderr.
void complain(std::string_view text);
/// Writes text to stderr as it is: progress and figures. What cannot be written is lost, and no reason to fail.
void show(std::string_view text);
/// Reports the error in one line and returns the exit code for it.
[[nodiscard]] int fail(const Error& error);
/// Whether stderr is a terminal, the only place where progress goes.
[[nodiscard]] bool shows_progress();
/// The bytes of a text file ("-" is stdin). Errors: io, limit_exceeded.
[[nodiscard]] Result<std::string> read_text(const std::string& path);
/// Bytes in a readable unit: "4.9 GiB".
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);
/// "[=====     ] 1.2 GiB of 4.9 GiB", for a terminal.
[[nodiscard]] std::string progress_bar(std::uint64_t done, std::uint64_t all);
/// The values of --split-max-size ("500M", "2G", bytes; empty for no limit) and --split-max-tensors.
[[nodiscard]] Result<GgufWriteOptions> parse_split(const std::string& max_size, std::uint64_t max_tensors);

struct ModelFlags {
  std::string model;
  std::string device = "auto";
  int threads = 0;
  std::string precision = "auto";
  std::string prepare = "auto";
  bool no_mmap = false;  ///< read the file into memory instead of mapping it
};

/// The type of keys and values: of both, or llama.cpp's two flags, which have to agree.
struct KvTypeFlags {
  std::string both = "f16";
  std::optional<std::string> keys, values;
};

inline constexpr std::int64_t kDefaultContext = 4096;

/// What every command that draws tokens takes.
struct InferenceFlags {
  ModelFlags model;
  std::optional<std::int64_t> context;  ///< default: kDefaultContext, or the model's own if that is less
  std::int64_t predict = -1;
  std::int64_t batch = 512;
  KvTypeFlags kv_type;
  float temperature = 0.8f;
  std::int64_t top_k = 40;
  float top_p = 0.95f;
  float min_p = 0.05f;
  float repeat_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  std::int64_t repeat_last_n = 64;  ///< -1: the context
  std::int64_t seed = -1;
};

struct GenerateFlags {
  InferenceFlags inference;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  bool ignore_eos = false;
  bool no_display_prompt = false;
  bool stats = false;
};
[[nodiscard]] int run_generate(const GenerateFlags& flags);

struct ChatFlags {
  InferenceFlags inference;
  std::optional<std::string> system;
  std::optional<std::string> prompt;         ///< the first message
  std::optional<std::string> template_name;  ///< instead of what the file says
  bool stats = false;
};
[[nodiscard]] int run_chat(const ChatFlags& flags);

struct PerplexityFlags {
  ModelFlags model;
  std::string file;
  std::int64_t context = 512;
  std::int64_t chunks = -1;
  std::int64_t batch = 512;
  KvTypeFlags kv_type;
  bool json = false;
};
[[nodiscard]] int run_perplexity(const PerplexityFlags& flags);

struct InspectFlags {
  std::string model;
  bool tensors = false;
  bool check = false;  ///< read all weights and look for scales that are no numbers
  bool json = false;
};
[[nodiscard]] int run_inspect(const InspectFlags& flags);

struct TokenizeFlags {
  std::string model;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  bool no_bos = false;
  bool no_parse_special = false;
  bool ids = false;
  bool json = false;
  bool stats = false;  ///< print time and speed at the end, to stderr
};
[[nodiscard]] int run_tokenize(const TokenizeFlags& flags);

struct DevicesFlags {
  bool json = false;
};
[[nodiscard]] int run_devices(const DevicesFlags& flags);

struct SynthFlags {
  std::string output;
  std::string like, architecture, vocabulary;  ///< empty: not given
  std::string type = "q4_K";
  std::optional<std::uint64_t> layers, embedding, heads, kv_heads, head_dim, feed_forward, vocab, context, window;
  std::optional<double> rope_base;
  bool tied = false, untied = false;
  std::uint64_t seed = 1;
  int threads = 0;
  std::string split_max_size;
  std::uint64_t split_max_tensors = 0;
  bool json = false;
};
[[nodiscard]] int run_synth(const SynthFlags& flags);

struct BenchMatmulFlags {
  std::vector<std::string> types = {"q4_0", "q8_0", "q4_K", "q6_K"};
  std::vector<std::string> shapes = {"4096x4096"};  ///< NxK
  std::vector<std::int64_t> rows = {1};             ///< M
  std::string device = "auto";
  int threads = 0;
  std::string precision = "auto";
  std::string door = "prepared";
  std::string route = "auto";
  std::string x = "f32", y = "f32";
  std::string early_starts = "on";
  bool batch_invariant = false;
  double seconds = 1.0;  ///< per case
  bool explain = false;  ///< measure nothing, say what would run
  bool json = false;
};
/// Which implementation every operation takes on this machine, and why; then the products of the flags.
[[nodiscard]] int run_bench_explain(const BenchMatmulFlags& flags);
[[nodiscard]] int run_bench_matmul(const BenchMatmulFlags& flags);

struct BenchModelFlags {
  std::vector<std::string> models;
  std::vector<std::int64_t> prompt = {512}, predict = {128}, depth = {0};
  std::vector<int> threads = {0};
  std::int64_t reps = 5;
  std::int64_t batch = 512;
  std::string device = "auto";
  std::string precision = "auto";
  std::string prepare = "auto";
  std::string kv_type = "f16";
  std::string output = "md";
  bool json = false;
};
[[nodiscard]] int run_bench_model(const BenchModelFlags& flags);

struct BenchCeilingsFlags {
  std::string device = "auto";
  int threads = 0;
  bool json = false;
};
[[nodiscard]] int run_bench_ceilings(const BenchCeilingsFlags& flags);

}  // namespace mlxn::cli
