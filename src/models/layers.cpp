#include "models/layers.h"

#include "base/error.h"
#include "mlxn/ops/add.h"
#include "mlxn/ops/cached_attention.h"
#include "mlxn/ops/embedding.h"
#include "mlxn/ops/gelu_mul.h"
#include "mlxn/ops/rms_norm.h"
#include "mlxn/ops/silu_mul.h"
#include "mlxn/ops/softcap.h"

namespace mlxn::models {

namespace {

/// y = norm(work.x) * weight^T (+ bias) of the last rows, as many as y has
Result<void> apply_normed(CommandEncoder& encoder, const Linear& linear, const Norm& norm, const Tensor& y, const Step& step) {
  MLXN_TRY(const Tensor x, last_rows(step.work.x, y.dim(0)));
  MatmulFusion fusion;
  fusion.norm = norm.weight, fusion.norm_eps = norm.eps;
  MLXN_TRY(fusion.normed, last_rows(step.work.h, y.dim(0)));
  MLXN_CHECK(fused_matmul(encoder, x, linear.weight, y, fusion, step.matmul));
  return linear.bias.defined() ? add(encoder, y, linear.bias, y) : Result<void>();
}

/// work.x += post_norm(in * weight^T (+ bias)), without a norm if that has no weight
Result<void> add_to_residual(CommandEncoder& encoder, const Linear& linear, const Tensor& in, const Norm& post_norm, const Step& step) {
  const Workspace& w = step.work;
  if (!post_norm.weight.defined() && !linear.bias.defined()) {
    MatmulFusion fusion;
    fusion.residual = w.x, fusion.product = w.h;
    return fused_matmul(encoder, in, linear.weight, w.x, fusion, step.matmul);
  }
  MLXN_CHECK(apply(encoder, linear, in, w.h, step.matmul));
  if (post_norm.weight.defined()) MLXN_CHECK(rms_norm(encoder, w.h, post_norm.weight, w.h, post_norm.eps));
  return add(encoder, w.x, w.h, w.x);
}

}  // namespace

std::string block_name(std::int64_t layer) { return fmt::format("blk.{}.", layer); }

Result<Embeddings> Embeddings::load(Loader& loader, const ModelInfo& info, float eps) {
  Embeddings e;
  e.eps = eps;
  MLXN_TRY(e.tokens, loader.matrix("token_embd.weight", info.vocab, info.dim));
  MLXN_TRY(e.output_norm, loader.vector("output_norm.weight", info.dim));
  if (loader.has("output.weight")) {
    MLXN_TRY(e.output, loader.linear("output", info.vocab, info.dim));
    loader.read_by_row(e.tokens);
  } else {
    e.output.weight = e.tokens;
  }
  return e;
}

Result<void> Embeddings::embed(CommandEncoder& encoder, const Step& step) const {
  return embedding(encoder, step.work.ids, tokens, step.work.x, scale);
}

Result<void> Embeddings::unembed(CommandEncoder& encoder, const Step& step) const {
  MLXN_CHECK(apply_normed(encoder, output, {output_norm, eps}, step.logits, step));
  if (softcap != 0) MLXN_CHECK(mlxn::softcap(encoder, step.logits, step.logits, softcap));
  return {};
}

Result<SelfAttention> SelfAttention::load(Loader& loader, const std::string& block, const ModelInfo& info) {
  const std::int64_t q_dim = info.heads * info.head_dim, kv_dim = info.kv_heads * info.head_dim;
  SelfAttention a;
  if (loader.has(block + "attn_qkv.weight")) {
    MLXN_TRY(a.qkv, loader.linear(block + "attn_qkv", q_dim + 2 * kv_dim, info.dim));
  } else if (!loader.has(block + "attn_q.weight")) {
    return make_error(ErrorCode::not_found, "{}: there is neither a tensor '{}attn_q.weight' nor '{}attn_qkv.weight'",
                      loader.file().label(), block, block);
  } else {
    const Loader::Part parts[] = {{block + "attn_q", q_dim}, {block + "attn_k", kv_dim}, {block + "attn_v", kv_dim}};
    MLXN_TRY(a.qkv, loader.stacked(parts, info.dim));
    if (!a.qkv.weight.defined()) {
      MLXN_TRY(a.q, loader.linear(parts[0].name, q_dim, info.dim));
      MLXN_TRY(a.k, loader.linear(parts[1].name, kv_dim, info.dim));
      MLXN_TRY(a.v, loader.linear(parts[2].name, kv_dim, info.dim));
    }
  }
  MLXN_TRY(a.output, loader.linear(block + "attn_output", info.dim, q_dim));
  return a;
}

Result<void> SelfAttention::load_head_norms(Loader& loader, const std::string& block, const ModelInfo& info,
                                            float epsilon) {
  eps = epsilon;
  MLXN_TRY(q_norm, loader.vector(block + "attn_q_norm.weight", info.head_dim));
  MLXN_TRY(k_norm, loader.vector(block + "attn_k_norm.weight", info.head_dim));
  return {};
}

Result<void> SelfAttention::require_biases(const Loader& loader, const std::string& block) const {
  const auto missing = [&](std::string_view name) {
    return make_error(ErrorCode::not_found, "{}: there is no tensor '{}{}.bias'", loader.file().label(), block, name);
  };
  if (qkv.weight.defined()) {
    return qkv.bias.defined() ? Result<void>() : missing(loader.has(block + "attn_qkv.weight") ? "attn_qkv" : "attn_q");
  }
  if (!q.bias.defined()) return missing("attn_q");
  if (!k.bias.defined()) return missing("attn_k");
  if (!v.bias.defined()) return missing("attn_v");
  return {};
}

Result<void> SelfAttention::forward(CommandEncoder& encoder, const KvCache::Layer& cache, const Step& step, const Norm& norm,
                                    const Tensor& post_norm) const {
  const Workspace& w = step.work;
  if (qkv.weight.defined()) {
    MLXN_TRY(const Tensor all, flatten_heads(w.qkv));
    MLXN_CHECK(apply_normed(encoder, qkv, norm, all, step));
  } else {
    MLXN_CHECK(rms_norm(encoder, w.x, norm.weight, w.h, norm.eps));
    MLXN_TRY(const Tensor q_rows, flatten_heads(w.q));
    MLXN_TRY(const Tensor k_rows, flatten_heads(w.k));
    MLXN_TRY(const Tensor v_rows, flatten_heads(w.v));
    MLXN_CHECK(apply(encoder, q, w.h, q_rows, step.matmul));
    MLXN_CHECK(apply(encoder, k, w.h, k_rows, step.matmul));
    MLXN_CHECK(apply(encoder, v, w.h, v_rows, step.matmul));
  }
  if (q_norm.defined()) {
    MLXN_CHECK(rms_norm(encoder, w.q, q_norm, w.q, eps));
    MLXN_CHECK(rms_norm(encoder, w.k, k_norm, w.k, eps));
  }
  const RopeTable& table = rope.table(step.cache->capacity);
  MLXN_TRY(const Tensor keys, cache.k.slice(1, 0, step.kv_bound));
  MLXN_TRY(const Tensor values, cache.v.slice(1, 0, step.kv_bound));
  MLXN_CHECK(cached_attention(encoder, w.q, w.k, w.v, w.positions, table, keys, values, step.position, step.kv_len, w.attended, options));
  MLXN_TRY(const Tensor attended, flatten_heads(w.attended));
  return add_to_residual(encoder, output, attended, {post_norm, norm.eps}, step);
}

Result<FeedForward> FeedForward::load(Loader& loader, const std::string& block, const ModelInfo& info, MatmulGate activation) {
  FeedForward f;
  f.activation = activation;
  const Loader::Part parts[] = {{block + "ffn_gate", info.ff_dim}, {block + "ffn_up", info.ff_dim}};
  MLXN_TRY(f.gate_up, loader.stacked(parts, info.dim));
  if (!f.gate_up.weight.defined()) {
    MLXN_TRY(f.gate, loader.linear(parts[0].name, info.ff_dim, info.dim));
    MLXN_TRY(f.up, loader.linear(parts[1].name, info.ff_dim, info.dim));
  }
  MLXN_TRY(f.down, loader.linear(block + "ffn_down", info.dim, info.ff_dim));
  return f;
}

Result<FeedForward> FeedForward::load_fused(Loader& loader, const std::string& block, const ModelInfo& info, MatmulGate activation) {
  FeedForward f;
  f.activation = activation;
  MLXN_TRY(f.gate_up, loader.linear(block + "ffn_up", 2 * info.ff_dim, info.dim));
  MLXN_TRY(f.down, loader.linear(block + "ffn_down", info.dim, info.ff_dim));
  return f;
}

Result<void> FeedForward::forward(CommandEncoder& encoder, const Step& step, const Norm& norm, const Tensor& post_norm) const {
  const Workspace& w = step.work;
  if (gate_up.weight.defined() && !gate_up.bias.defined()) {
    MatmulFusion fusion;
    fusion.norm = norm.weight, fusion.norm_eps = norm.eps, fusion.normed = w.h;
    fusion.gate = activation, fusion.product = w.gate_up;
    MLXN_CHECK(fused_matmul(encoder, w.x, gate_up.weight, w.gate, fusion, step.matmul));
  } else {
    MLXN_CHECK(rms_norm(encoder, w.x, norm.weight, w.h, norm.eps));
    if (gate_up.weight.defined()) {
      MLXN_CHECK(apply(encoder, gate_up, w.h, w.gate_up, step.matmul));
    } else {
      MLXN_CHECK(apply(encoder, gate, w.h, w.gate, step.matmul));
      MLXN_CHECK(apply(encoder, up, w.h, w.up, step.matmul));
    }
    MLXN_CHECK(activation == MatmulGate::silu ? silu_mul(encoder, w.gate, w.up, w.gate) : gelu_mul(encoder, w.gate, w.up, w.gate));
  }
  return add_to_residual(encoder, down, w.gate, {post_norm, norm.eps}, step);
}

Result<Block> Block::load(Loader& loader, const std::string& name, const ModelInfo& info) {
  Block b;
  MLXN_TRY(b.attn_norm, loader.vector(name + "attn_norm.weight", info.dim));
  MLXN_TRY(b.attention, SelfAttention::load(loader, name, info));
  MLXN_TRY(b.ffn_norm, loader.vector(name + "ffn_norm.weight", info.dim));
  return b;
}

Result<void> Block::load_post_norms(Loader& loader, const std::string& name, const ModelInfo& info) {
  MLXN_TRY(post_attention_norm, loader.vector(name + "post_attention_norm.weight", info.dim));
  MLXN_TRY(post_ffw_norm, loader.vector(name + "post_ffw_norm.weight", info.dim));
  return {};
}

Result<void> BlockDecoder::forward(CommandEncoder& encoder, const Step& step) const {
  MLXN_CHECK(embeddings_.embed(encoder, step));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    MLXN_CHECK(block.attention.forward(encoder, step.cache->layers[i], step, {block.attn_norm, eps_}, block.post_attention_norm));
    MLXN_CHECK(block.feed_forward.forward(encoder, step, {block.ffn_norm, eps_}, block.post_ffw_norm));
  }
  return embeddings_.unembed(encoder, step);
}

}  // namespace mlxn::models
