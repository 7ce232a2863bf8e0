#pragma once

#include <chrono>

#include "cli/commands.h"
#include "mlxn/model.h"
#include "mlxn/tokenizer.h"

namespace mlxn::cli {

using Clock = std::chrono::steady_clock;
[[nodiscard]] inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

enum class OnInterrupt : std::uint8_t {
  end,        ///< the program ends at once with a line that says so: there is nothing to finish yet
  stop_once,  ///< interrupted() is set and the work stops where it can; the next Ctrl-C ends the program
  stop        ///< the same each time
};
/// What Ctrl-C does from now on.
void catch_interrupts(OnInterrupt what);
[[nodiscard]] bool interrupted() noexcept;
void clear_interrupt() noexcept;
/// While it lives, Ctrl-C is answered with a line that the work stops after the chunk at hand, which may take long.
class ChunksRun {
 public:
  explicit ChunksRun(Session* cancelled = nullptr) noexcept;  ///< Session::cancel() is called on it
  ~ChunksRun();
  ChunksRun(const ChunksRun&) = delete;
  ChunksRun& operator=(const ChunksRun&) = delete;
};

/// The flags as the library takes them. Errors: invalid_argument.
struct InferenceOptions {
  LoadOptions load;
  SessionOptions session;  ///< context 0 if no flag says more; see make_session()
  SamplerOptions sampler;
};
[[nodiscard]] Result<InferenceOptions> read_flags(const InferenceFlags& flags);

/// A device and a file with its tokenizer.
struct OpenedFile {
  Device device;
  GgufFile file;
  Tokenizer tokenizer;
};
[[nodiscard]] Result<OpenedFile> open_file(const ModelFlags& flags);
/// Shows progress, says what is unusual, and stops for Ctrl-C.
[[nodiscard]] Result<Model> load_model(const OpenedFile& opened, const LoadOptions& options);
/// Positions that a session of this model gets.
[[nodiscard]] std::int64_t context_of(const InferenceFlags& flags, const Model& model);
[[nodiscard]] Result<Session> make_session(const Model& model, const InferenceFlags& flags, SessionOptions options);
[[nodiscard]] Result<Sampler> make_sampler(const Model& model, const Session& session, const SamplerOptions& options);
/// append() that Ctrl-C stops with `cancelled`.
[[nodiscard]] Result<Tensor> append_prompt(Session& session, std::span<const TokenId> tokens);

struct Timing {
  double load = 0, prompt = 0, generate = 0, first_token = 0;
  std::size_t prompt_tokens = 0;
  std::size_t generated = 0;
  std::size_t decoded = 0;  ///< of those, the ones that took a pass of their own
};
/// What --stats shows of the device, one line to stderr.
void print_counters(const Device& device);
/// One line to stderr.
void print_summary(const Timing& timing, const Model& model, const Session& session, std::uint64_t seed);

}  // namespace mlxn::cli
