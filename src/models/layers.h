#pragma once

#include <string>
#include <vector>

#include "mlxn/ops/attention.h"
#include "mlxn/ops/fused_matmul.h"
#include "models/forward.h"
#include "models/rope_tables.h"

namespace mlxn::models {

/// Parts that families are put together from. Each reads the residual stream, the workspace's `x`, and adds to it; `h` is memory
/// for what lies between.

/// An RMS norm.
struct Norm {
  Tensor weight;  // [dim]
  float eps = 0;
};

/// The vocabulary's side of a model: tokens become activations at one end, activations logits at the other.
struct Embeddings {
  Weight tokens;       // [vocab, dim]
  float scale = 1;     // of their rows
  Tensor output_norm;  // [dim]
  float eps = 0;
  Linear output;      // [vocab, dim]; `tokens` itself if the file has none
  float softcap = 0;  // of the logits, 0 for none

  [[nodiscard]] static Result<Embeddings> load(Loader& loader, const ModelInfo& info, float eps);
  /// work.ids -> work.x
  [[nodiscard]] Result<void> embed(CommandEncoder& encoder, const Step& step) const;
  /// work.x -> step.logits
  [[nodiscard]] Result<void> unembed(CommandEncoder& encoder, const Step& step) const;
};

/// x += post_norm(output(attention(rope(norm(q(h))), rope(norm(k(h))), v(h)))), h = norm(x), over all that the cache holds and the
/// step adds to it; without a post_norm if that is empty
struct SelfAttention {
  Linear qkv;             // [(heads + 2 * kv_heads) * head_dim, dim]; empty where the file's parts cannot be stacked, then
  Linear q, k, v;         // [heads * head_dim, dim], 2 x [kv_heads * head_dim, dim]
  Tensor q_norm, k_norm;  // [head_dim], of each head; empty if the family has none
  float eps = 0;          // of those norms
  RopeTables rope;
  AttentionOptions options;  // scale, window, softcap
  Linear output;             // [dim, heads * head_dim]

  /// The four projections: attn_q, attn_k and attn_v, or attn_qkv, and attn_output.
  [[nodiscard]] static Result<SelfAttention> load(Loader& loader, const std::string& block, const ModelInfo& info);
  /// The norms of the heads: attn_q_norm and attn_k_norm.
  [[nodiscard]] Result<void> load_head_norms(Loader& loader, const std::string& block, const ModelInfo& info, float epsilon);
  /// For families whose files never lack the biases of queries, keys and values.
  [[nodiscard]] Result<void> require_biases(const Loader& loader, const std::string& block) const;
  [[nodiscard]] Result<void> forward(CommandEncoder& encoder, const KvCache::Layer& cache, const Step& step, const Norm& norm,
                                     const Tensor& post_norm) const;
};

/// x += post_norm(down(act(gate(h)) * up(h))), h = norm(x); likewise
struct FeedForward {
  Linear gate_up;   // [2 * ff_dim, dim]; empty where the file's parts cannot be stacked, then
  Linear gate, up;  // 2 x [ff_dim, dim]
  MatmulGate activation = MatmulGate::silu;
  Linear down;  // [dim, ff_dim]

  /// ffn_gate, ffn_up and ffn_down.
  [[nodiscard]] static Result<FeedForward> load(Loader& loader, const std::string& block, const ModelInfo& info, MatmulGate activation);
  /// ffn_up with the gate in its first half, and ffn_down.
  [[nodiscard]] static Result<FeedForward> load_fused(Loader& loader, const std::string& block, const ModelInfo& info,
                                                      MatmulGate activation);
  [[nodiscard]] Result<void> forward(CommandEncoder& encoder, const Step& step, const Norm& norm, const Tensor& post_norm) const;
};

/// One layer: x += attention(norm(x)), then x += feed_forward(norm(x)); a second norm closes each where the family has one.
struct Block {
  Tensor attn_norm;  // [dim], as all norms
  SelfAttention attention;
  Tensor post_attention_norm;  // empty if the family has none
  Tensor ffn_norm;
  FeedForward feed_forward;
  Tensor post_ffw_norm;  // empty if the family has none

  /// What all families have in common: attn_norm, the projections of the attention and ffn_norm.
  [[nodiscard]] static Result<Block> load(Loader& loader, const std::string& name, const ModelInfo& info);
  /// post_attention_norm and post_ffw_norm.
  [[nodiscard]] Result<void> load_post_norms(Loader& loader, const std::string& name, const ModelInfo& info);
};

/// A decoder of such layers. A family says how it is loaded.
class BlockDecoder : public Decoder {
 public:
  [[nodiscard]] Result<void> forward(CommandEncoder& encoder, const Step& step) const final;

 protected:
  Embeddings embeddings_;
  std::vector<Block> blocks_;
  float eps_ = 0;  // of the norms
};

/// "blk.N.", which the names of a layer's tensors begin with.
[[nodiscard]] std::string block_name(std::int64_t layer);

}  // namespace mlxn::models
