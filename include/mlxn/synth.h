#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/dtype.h"
#include "mlxn/gguf_writer.h"
#include "mlxn/result.h"

namespace mlxn {

/// A vocabulary that a synthetic model can have: made up, but of the family's kind, special tokens and chat template included,
/// so that every text encodes and decodes.
enum class SynthVocabulary : std::uint8_t {
  llama,   ///< SentencePiece: Llama 2, Mistral
  gemma,   ///< SentencePiece without a space in front
  phi3,    ///< SentencePiece with the turns of Phi-3
  llama3,  ///< byte-level BPE, rule llama-bpe
  qwen2,   ///< byte-level BPE, rule qwen2
};
[[nodiscard]] std::string_view to_string(SynthVocabulary vocabulary) noexcept;

/// The sizes that make a model of an architecture. A zero is what the comment says.
struct SynthModel {
  std::string name;          ///< general.name
  std::string architecture;  ///< llama, qwen2, qwen3, gemma2, gemma3 or phi3
  std::uint64_t layers = 0, embedding = 0, feed_forward = 0, vocab = 0;
  std::uint64_t heads = 0;
  std::uint64_t kv_heads = 0;  ///< zero: heads
  std::uint64_t head_dim = 0;  ///< zero: embedding / heads
  std::uint64_t context = 0;   ///< positions
  std::uint64_t window = 0;    ///< positions of a sliding window; zero: none
  bool tied = false;           ///< no output matrix of its own
  SynthVocabulary vocabulary = SynthVocabulary::llama;
  double rms_epsilon = 1e-5;                   ///< above 0
  double rope_base = 10000;                    ///< at least 1
  double rope_linear = 0;                      ///< factor of linear scaling, 1 to 10^6; zero: none
  double rope_llama3 = 0;                      ///< factor of the tensor rope_freqs (low 1, high 4, 8192 positions), 1 to 10^6; zero: none
  double attn_softcap = 0, final_softcap = 0;  ///< above 0, at most 10^6; zero: none

  [[nodiscard]] bool operator==(const SynthModel&) const = default;
};

/// What makes an architecture besides sizes: vocabulary, rotation, tied output. All sizes are zero.
/// Errors: invalid_argument (the message lists the known names).
[[nodiscard]] Result<SynthModel> synth_architecture(std::string_view architecture) noexcept;
/// A known model by name ("llama3-8b"). Errors: invalid_argument (the message lists the known names).
[[nodiscard]] Result<SynthModel> synth_model(std::string_view like) noexcept;
/// The names that synth_model() knows.
[[nodiscard]] std::span<const std::string_view> synth_models() noexcept;

struct SynthOptions {
  DType type = DType::q4_K;  ///< of all matrices; vectors are f32
  std::uint64_t seed = 1;
  int threads = 0;  ///< zero: one per usable core. The bytes do not depend on it
  GgufWriteOptions write;
  /// Called with (bytes of tensors written, bytes in all). Returning false stops with `cancelled`, an exception with
  /// invalid_argument and the exception's text.
  std::function<bool(std::uint64_t, std::uint64_t)> progress;
};

struct SynthReport {
  std::vector<std::string> paths;
  std::uint64_t parameters = 0;    ///< elements of all tensors
  std::uint64_t tensor_bytes = 0;
  std::uint64_t file_bytes = 0;
};

/// Writes a GGUF file with the tensor names, shapes and metadata of the model and random weights: matrices have variance
/// 1 / row length and mean 0, norms lie about 1. The same model, type and seed give the same bytes.
/// Errors: those of GgufWriter; invalid_argument (sizes that make no model, a vocabulary too small for its special tokens, `progress`
/// threw), unsupported (a type without kernels), bad_dtype (a number that is no type), bad_shape (a type whose blocks do not divide a
/// row), cancelled.
[[nodiscard]] Result<SynthReport> synthesize(const std::filesystem::path& target, const SynthModel& model,
                                             const SynthOptions& options = {}) noexcept;

}  // namespace mlxn
