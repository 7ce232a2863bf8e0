#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "mlxn/device.h"
#include "mlxn/gguf.h"
#include "mlxn/graph.h"
#include "mlxn/ops/matmul.h"
#include "mlxn/ops/sample.h"
#include "mlxn/tokenizer.h"

namespace mlxn {

class ModelImpl;
class Sampler;
class SessionImpl;
class SamplerImpl;

struct LoadOptions {
  PrepareMode prepare = PrepareMode::automatic;
  /// Called with (bytes loaded, bytes in all) from the loading thread. Returning false stops the load with `cancelled`, an
  /// exception with invalid_argument and the exception's text.
  std::function<bool(std::uint64_t, std::uint64_t)> progress;
};

/// What a model is.
struct ModelInfo {
  std::string architecture;  ///< "llama", "qwen3", ...
  std::string name;          ///< general.name, may be empty
  std::int64_t vocab = 0, dim = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ff_dim = 0;
  std::int64_t context = 0;         ///< positions it was trained for
  std::int64_t parameters = 0;      ///< elements of all its tensors
  std::uint64_t weight_bytes = 0;   ///< as they lie on the device
  std::uint64_t bytes_per_token = 0;  ///< of weights read for one decoded token
  bool prepared = false;
  std::string_view prepare_note;  ///< why the blocks were kept raw, empty otherwise
};

/// A model's weights on a device: immutable, shared by any number of sessions.
class Model {
 public:
  /// Architectures: llama (Llama 2 and 3, Mistral), qwen2, qwen3, gemma2, gemma3, phi3; dense ones.
  /// Errors: those of GgufFile, unsupported (architecture, scaling of the rotation, experts, layers that differ, a tensor type
  /// without kernels), not_found (a tensor or key is missing), corrupt_file (tensors of another shape than the metadata says,
  /// values that make no sense), out_of_memory, cancelled, invalid_argument (an option, `progress` threw), wrong_state (the file was
  /// moved from).
  [[nodiscard]] static Result<Model> load(const GgufFile& file, const Device& device, const LoadOptions& options = {});

  Model() = default;
  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  /// Of an empty handle all zeros and empty texts.
  [[nodiscard]] const ModelInfo& info() const noexcept;
  [[nodiscard]] Device device() const noexcept;
  [[nodiscard]] const ModelImpl* impl() const noexcept { return impl_.get(); }

 private:
  explicit Model(std::shared_ptr<const ModelImpl> impl) noexcept : impl_(std::move(impl)) {}
  std::shared_ptr<const ModelImpl> impl_;
};

struct SessionOptions {
  std::int64_t context = 0;  ///< positions of the KV cache; 0 takes the model's own
  DType kv_type = DType::f16;  ///< f16 or f32
  std::int64_t batch = 512;  ///< most tokens that one forward pass takes; a longer prompt goes in chunks
  /// automatic is int8act on a CPU, f16 on a GPU. bf16 is unsupported on a CPU.
  Numerics numerics = Numerics::automatic;
};

/// One sequence of tokens on a model: its KV cache and the work that extends it. Owned by one thread at a time.
class Session {
 public:
  /// Errors: invalid_argument (options), bad_dtype (kv_type), unsupported (numerics that the device does not have), out_of_memory
  /// with the bytes wanted and available.
  [[nodiscard]] static Result<Session> create(const Model& model, const SessionOptions& options = {});

  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  /// Runs the tokens at the next positions. Returns the logits f32 [1, vocab] that follow the last one; they are valid until
  /// the next call. A single token takes the recorded decode graph, more go through in chunks of `batch`.
  /// Errors: invalid_argument (no tokens), out_of_range (an id outside the vocabulary, positions beyond the context),
  /// cancelled, out_of_memory, device, wrong_state (moved from). After out_of_range nothing has changed; after the others
  /// length() tells how far the finished chunks came.
  [[nodiscard]] Result<Tensor> append(std::span<const TokenId> tokens);
  /// The same, and `logits` (f32 [tokens, vocab], else bad_shape) receives those that follow every token. Not cancelled.
  [[nodiscard]] Result<void> append_with_logits(std::span<const TokenId> tokens, const Tensor& logits);

  /// append({token}) and sampler.next() of the logits that follow, as one replay of a recorded graph: for a token drawn on the
  /// device the host waits once and reads four bytes. `sampler` is of the model's device and vocabulary.
  /// Errors: those of append() and, wrong_device and bad_shape, of a sampler that does not fit.
  [[nodiscard]] Result<TokenId> next(TokenId token, Sampler& sampler);

  /// Forgets all positions from `length` on. Errors: out_of_range.
  [[nodiscard]] Result<void> truncate(std::int64_t length);
  [[nodiscard]] std::int64_t length() const noexcept;
  [[nodiscard]] std::int64_t context() const noexcept;
  [[nodiscard]] std::uint64_t kv_bytes() const noexcept;
  /// The class that matrix products run in.
  [[nodiscard]] Numerics numerics() const noexcept;
  /// Asks append(), running or about to run, to stop after its current chunk with `cancelled`; from any thread or a signal
  /// handler. Forgotten once the last chunk has run.
  void cancel() noexcept;

 private:
  explicit Session(std::unique_ptr<SessionImpl> impl) noexcept;
  std::unique_ptr<SessionImpl> impl_;
};

struct SamplerOptions {
  SampleOptions sample;
  std::int64_t window = 64;  ///< recent tokens that penalties look at; 0 for none
};

/// Draws tokens from logits on the device and remembers them for the penalties. Owned by one thread at a time.
class Sampler {
 public:
  [[nodiscard]] static Result<Sampler> create(const Device& device, std::int64_t vocab, const SamplerOptions& options = {});
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;
  ~Sampler();

  /// Adds a token to the recent ones without drawing it: the prompt's.
  [[nodiscard]] Result<void> accept(TokenId token);
  /// Draws from logits f32 [1, vocab] and accepts the token.
  [[nodiscard]] Result<TokenId> next(const Tensor& logits);

 private:
  friend class Session;
  explicit Sampler(std::unique_ptr<SamplerImpl> impl) noexcept;
  std::unique_ptr<SamplerImpl> impl_;
};

}  // namespace mlxn
