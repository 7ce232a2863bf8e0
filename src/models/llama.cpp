// Llama 2 and 3, Mistral: pre-normed blocks of grouped-query attention with rotary positions and a SwiGLU feed-forward
// network, arXiv:2307.09288 and 2407.21783. Files pair neighbouring elements for the rotation: the converters permute the
// rows of Q and K so.

#include <cmath>

#include "base/error.h"
#include "mlxn/ops/add.h"
#include "mlxn/ops/attention.h"
#include "mlxn/ops/embedding.h"
#include "mlxn/ops/kv_append.h"
#include "mlxn/ops/rms_norm.h"
#include "mlxn/ops/rope.h"
#include "mlxn/ops/silu_mul.h"
#include "models/forward.h"

namespace mlxn::models {
namespace {

class Llama final : public Decoder {
 public:
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, ModelInfo& info);
  [[nodiscard]] Result<void> forward(CommandEncoder& encoder, const Step& step) const override;

 private:
  struct Layer {
    Tensor attn_norm;               // [dim]
    Linear q, k, v, attn_output;    // [heads * head_dim, dim], 2 x [kv_heads * head_dim, dim], [dim, heads * head_dim]
    Tensor ffn_norm;                // [dim]
    Linear gate, up, down;          // 2 x [ff_dim, dim], [dim, ff_dim]
  };
  [[nodiscard]] Result<void> attend(CommandEncoder& encoder, const Layer& layer, const KvCache::Layer& cache,
                                    const Step& step) const;
  [[nodiscard]] Result<void> feed_forward(CommandEncoder& encoder, const Layer& layer, const Step& step) const;

  Weight token_embd_;  // [vocab, dim]
  std::vector<Layer> layers_;
  Tensor output_norm_;  // [dim]
  Linear output_;       // [vocab, dim]; the embedding itself if tied
  RopeTable rope_;
  float eps_ = 0;
  std::int64_t window_ = -1;
};

Result<void> Llama::load(Loader& loader, const GgufArchitecture& architecture, ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  MLXN_TRY(const std::uint64_t window, loader.file().get_uint_or(architecture.name + ".attention.sliding_window", 0));
  if (window != 0) window_ = static_cast<std::int64_t>(window);
  MLXN_TRY(rope_, load_rope(loader, architecture, RopePairing::adjacent));

  const std::int64_t q_dim = info.heads * info.head_dim, kv_dim = info.kv_heads * info.head_dim;
  MLXN_TRY(token_embd_, loader.matrix("token_embd.weight", info.vocab, info.dim));
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    Layer layer;
    MLXN_TRY(layer.attn_norm, loader.vector(block + "attn_norm.weight", info.dim));
    MLXN_TRY(layer.q, loader.linear(block + "attn_q", q_dim, info.dim));
    MLXN_TRY(layer.k, loader.linear(block + "attn_k", kv_dim, info.dim));
    MLXN_TRY(layer.v, loader.linear(block + "attn_v", kv_dim, info.dim));
    MLXN_TRY(layer.attn_output, loader.linear(block + "attn_output", info.dim, q_dim));
    MLXN_TRY(layer.ffn_norm, loader.vector(block + "ffn_norm.weight", info.dim));
    MLXN_TRY(layer.gate, loader.linear(block + "ffn_gate", info.ff_dim, info.dim));
    MLXN_TRY(layer.up, loader.linear(block + "ffn_up", info.ff_dim, info.dim));
    MLXN_TRY(layer.down, loader.linear(block + "ffn_down", info.dim, info.ff_dim));
    layers_.push_back(std::move(layer));
  }
  MLXN_TRY(output_norm_, loader.vector("output_norm.weight", info.dim));
  if (loader.has("output.weight")) {
    MLXN_TRY(output_, loader.linear("output", info.vocab, info.dim));
    info.bytes_per_token = loader.weight_bytes() - token_embd_.bytes();
  } else {
    output_.weight = token_embd_;
    info.bytes_per_token = loader.weight_bytes();
  }
  return {};
}

Result<void> Llama::forward(CommandEncoder& encoder, const Step& step) const {
  const Workspace& w = step.work;
  MLXN_CHECK(embedding(encoder, w.ids, token_embd_, w.x));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    MLXN_CHECK(attend(encoder, layers_[i], step.cache->layers[i], step));
    MLXN_CHECK(feed_forward(encoder, layers_[i], step));
  }
  const std::int64_t rows = step.logits.dim(0);
  MLXN_TRY(const Tensor x, last_rows(w.x, rows));
  MLXN_TRY(const Tensor h, last_rows(w.h, rows));
  MLXN_CHECK(rms_norm(encoder, x, output_norm_, h, eps_));
  return apply(encoder, output_, h, step.logits, step.matmul);
}

/// x += output(attention(rope(q(norm(x))), rope(k(norm(x))), v(norm(x))))
Result<void> Llama::attend(CommandEncoder& encoder, const Layer& layer, const KvCache::Layer& cache, const Step& step) const {
  const Workspace& w = step.work;
  MLXN_TRY(const Tensor q, flatten_heads(w.q));
  MLXN_TRY(const Tensor k, flatten_heads(w.k));
  MLXN_TRY(const Tensor v, flatten_heads(w.v));
  MLXN_TRY(const Tensor attended, flatten_heads(w.attended));
  MLXN_TRY(const Tensor q_by_head, w.q.permute({1, 0, 2}));
  MLXN_TRY(const Tensor attended_by_head, w.attended.permute({1, 0, 2}));

  MLXN_CHECK(rms_norm(encoder, w.x, layer.attn_norm, w.h, eps_));
  MLXN_CHECK(apply(encoder, layer.q, w.h, q, step.matmul));
  MLXN_CHECK(apply(encoder, layer.k, w.h, k, step.matmul));
  MLXN_CHECK(apply(encoder, layer.v, w.h, v, step.matmul));
  MLXN_CHECK(rope(encoder, w.q, w.positions, rope_, w.q));
  MLXN_CHECK(rope(encoder, w.k, w.positions, rope_, w.k));
  MLXN_CHECK(kv_append(encoder, w.k, w.v, cache.k, cache.v, step.position));
  AttentionOptions options;
  options.window = window_;
  MLXN_CHECK(attention(encoder, q_by_head, cache.k, cache.v, attended_by_head, step.kv_len, options));
  MLXN_CHECK(apply(encoder, layer.attn_output, attended, w.h, step.matmul));
  return add(encoder, w.x, w.h, w.x);
}

/// x += down(silu(gate(norm(x))) * up(norm(x)))
Result<void> Llama::feed_forward(CommandEncoder& encoder, const Layer& layer, const Step& step) const {
  const Workspace& w = step.work;
  MLXN_CHECK(rms_norm(encoder, w.x, layer.ffn_norm, w.h, eps_));
  MLXN_CHECK(apply(encoder, layer.gate, w.h, w.gate, step.matmul));
  MLXN_CHECK(apply(encoder, layer.up, w.h, w.up, step.matmul));
  MLXN_CHECK(silu_mul(encoder, w.gate, w.up, w.gate));
  MLXN_CHECK(apply(encoder, layer.down, w.gate, w.h, step.matmul));
  return add(encoder, w.x, w.h, w.x);
}

}  // namespace

Result<std::unique_ptr<Decoder>> load_llama(Loader& loader, ModelInfo& info) {
  MLXN_TRY(const GgufArchitecture architecture, gguf_architecture(loader.file()));
  if (architecture.expert_count != 0) {
    return make_error(ErrorCode::unsupported, "{}: a llama model with {} experts; only dense ones run yet", loader.file().label(),
                      architecture.expert_count);
  }
  if (architecture.key_length != architecture.value_length) {
    return make_error(ErrorCode::unsupported, "{}: keys of {} and values of {} elements; only equal ones run yet",
                      loader.file().label(), architecture.key_length, architecture.value_length);
  }
  for (std::uint64_t i = 1; i < architecture.block_count; ++i) {
    if (architecture.head_count[i] != architecture.head_count[0] || architecture.head_count_kv[i] != architecture.head_count_kv[0] ||
        architecture.feed_forward_length[i] != architecture.feed_forward_length[0]) {
      return make_error(ErrorCode::unsupported, "{}: layer {} differs in size from layer 0; only equal layers run yet",
                        loader.file().label(), i);
    }
  }
  info.dim = static_cast<std::int64_t>(architecture.embedding_length);
  info.layers = static_cast<std::int64_t>(architecture.block_count);
  info.heads = static_cast<std::int64_t>(architecture.head_count[0]);
  info.kv_heads = static_cast<std::int64_t>(architecture.head_count_kv[0]);
  info.head_dim = static_cast<std::int64_t>(architecture.key_length);
  info.ff_dim = static_cast<std::int64_t>(architecture.feed_forward_length[0]);
  info.vocab = static_cast<std::int64_t>(architecture.vocab_size);
  info.context = static_cast<std::int64_t>(architecture.context_length);
  if (info.ff_dim == 0) {
    return make_error(ErrorCode::corrupt_file, "{}: the key '{}.feed_forward_length' is missing", loader.file().label(),
                      architecture.name);
  }
  if (info.vocab == 0) {
    return make_error(ErrorCode::corrupt_file, "{}: neither a vocabulary nor '{}.vocab_size'", loader.file().label(),
                      architecture.name);
  }
  auto llama = std::make_unique<Llama>();
  MLXN_CHECK(llama->load(loader, architecture, info));
  return std::unique_ptr<Decoder>(std::move(llama));
}

}  // namespace mlxn::models
