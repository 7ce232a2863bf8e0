#pragma once

#include <cstdint>
#include <memory>

#include "mlxn/encoder.h"
#include "mlxn/ops/matmul.h"
#include "models/kv_cache.h"
#include "models/loader.h"

namespace mlxn::models {

/// Activations of a forward pass over up to `rows` tokens, allocated once for a session.
struct Workspace {
  Tensor ids;        // u32 [rows]
  Tensor positions;  // i32 [rows]
  Tensor x;          // f32 [rows, dim]  the residual stream
  Tensor h;          // f32 [rows, dim]  normed input of a block, then its output
  // Side by side in each row, so that one product can give all three, or both.
  Tensor qkv;       // f32 [rows, heads + 2 * kv_heads, head_dim]
  Tensor q, k, v;   // its parts [rows, heads, head_dim] and 2 x [rows, kv_heads, head_dim]
  Tensor gate_up;   // f32 [rows, 2 * ff_dim]
  Tensor gate, up;  // its halves [rows, ff_dim]
  Tensor attended;  // f32 [rows, heads, head_dim]
  Tensor logits;    // f32 [1, vocab]

  [[nodiscard]] static Result<Workspace> create(const Device& device, const ModelInfo& info, std::int64_t rows);
  /// The same with the first `rows` rows only; logits stay.
  [[nodiscard]] Result<Workspace> first(std::int64_t rows) const;
};

/// One forward pass: the tokens in `work.ids` at `work.positions`, which are position, position + 1, ...
struct Step {
  Workspace work;
  KvCache* cache = nullptr;
  Scalar<std::int64_t> position = 0;  // of the first token
  Scalar<std::int64_t> kv_len = 0;    // position + tokens
  std::int64_t kv_bound = 0;          // most that kv_len will be: what attention is planned for
  Tensor logits;                      // f32 [rows, vocab]: of the last `rows` tokens
  MatmulOptions matmul;
};

/// A decoder-only transformer with its weights. One class per family, each in a file that reads in the order of its layers.
class Decoder {
 public:
  virtual ~Decoder() = default;
  /// Loads the weights; `info` has the sizes that `architecture` gives.
  [[nodiscard]] virtual Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) = 0;
  /// Records the pass: extends the cache, writes step.logits.
  [[nodiscard]] virtual Result<void> forward(CommandEncoder& encoder, const Step& step) const = 0;
};

/// y = x * weight^T (+ bias)
[[nodiscard]] Result<void> apply(CommandEncoder& encoder, const Linear& linear, const Tensor& x, const Tensor& y,
                                 const MatmulOptions& options);
/// x [a, b, c] as [a, b * c]; rows may lie apart, what is within one may not.
[[nodiscard]] Result<Tensor> flatten_heads(const Tensor& x);
/// The last `rows` rows of x [n, dim].
[[nodiscard]] Result<Tensor> last_rows(const Tensor& x, std::int64_t rows);

[[nodiscard]] std::unique_ptr<Decoder> make_llama();
[[nodiscard]] std::unique_ptr<Decoder> make_qwen2();
[[nodiscard]] std::unique_ptr<Decoder> make_qwen3();
[[nodiscard]] std::unique_ptr<Decoder> make_gemma2();
[[nodiscard]] std::unique_ptr<Decoder> make_gemma3();
[[nodiscard]] std::unique_ptr<Decoder> make_phi3();

}  // namespace mlxn::models
