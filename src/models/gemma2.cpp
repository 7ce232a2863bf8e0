// Gemma 2, arXiv:2408.00118: norms before and after each block, GeGLU, soft caps on the logits of attention and of the
// output, and windows on every other layer. Norm weights hold the +1 of the published checkpoints already.

#include <cmath>

#include "mlxn/ops/add.h"
#include "mlxn/ops/rms_norm.h"
#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Gemma2 final : public Decoder {
 public:
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
  [[nodiscard]] Result<void> forward(CommandEncoder& encoder, const Step& step) const override;

 private:
  struct Layer {
    Tensor attn_norm;  // [dim], as all norms
    SelfAttention attention;
    Tensor post_attention_norm;
    Tensor ffn_norm;
    FeedForward feed_forward;
    Tensor post_ffw_norm;
  };
  Embeddings embeddings_;
  std::vector<Layer> layers_;
  float eps_ = 0;
};

Result<void> Gemma2::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  const Metadata metadata(loader.file(), architecture.name);
  MLXN_TRY(const double attention_cap, metadata.positive_or("attn_logit_softcapping", 50));
  MLXN_TRY(const double output_cap, metadata.positive_or("final_logit_softcapping", 30));
  MLXN_TRY(const Windows windows, read_windows(loader.file(), architecture, 4096, 2));
  MLXN_TRY(const RopeTables rope, load_rope(loader, architecture, RopePairing::halves));
  // The 27B model, which 46 layers tell, scales by the width of all heads together.
  const std::int64_t query_dim = info.layers == 46 ? info.dim / info.heads : info.head_dim;

  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  embeddings_.scale = std::sqrt(static_cast<float>(info.dim));
  embeddings_.softcap = static_cast<float>(output_cap);
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string block = block_name(i);
    Layer layer;
    MLXN_TRY(layer.attn_norm, loader.vector(block + "attn_norm.weight", info.dim));
    MLXN_TRY(layer.attention, SelfAttention::load(loader, block, info));
    layer.attention.rope = rope;
    layer.attention.options.scale = 1 / std::sqrt(static_cast<float>(query_dim));
    layer.attention.options.softcap = static_cast<float>(attention_cap);
    layer.attention.options.window = windows.of(i);
    MLXN_TRY(layer.post_attention_norm, loader.vector(block + "post_attention_norm.weight", info.dim));
    MLXN_TRY(layer.ffn_norm, loader.vector(block + "ffn_norm.weight", info.dim));
    MLXN_TRY(layer.feed_forward, FeedForward::load(loader, block, info, Gate::gelu));
    MLXN_TRY(layer.post_ffw_norm, loader.vector(block + "post_ffw_norm.weight", info.dim));
    layers_.push_back(std::move(layer));
  }
  return {};
}

Result<void> Gemma2::forward(CommandEncoder& encoder, const Step& step) const {
  const Workspace& w = step.work;
  MLXN_CHECK(embeddings_.embed(encoder, step));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    MLXN_CHECK(rms_norm(encoder, w.x, layer.attn_norm, w.h, eps_));
    MLXN_CHECK(layer.attention.forward(encoder, step.cache->layers[i], step));
    MLXN_CHECK(rms_norm(encoder, w.h, layer.post_attention_norm, w.h, eps_));
    MLXN_CHECK(add(encoder, w.x, w.h, w.x));
    MLXN_CHECK(rms_norm(encoder, w.x, layer.ffn_norm, w.h, eps_));
    MLXN_CHECK(layer.feed_forward.forward(encoder, step));
    MLXN_CHECK(rms_norm(encoder, w.h, layer.post_ffw_norm, w.h, eps_));
    MLXN_CHECK(add(encoder, w.x, w.h, w.x));
  }
  return embeddings_.unembed(encoder, step);
}

}  // namespace

std::unique_ptr<Decoder> make_gemma2() { return std::make_unique<Gemma2>(); }

}  // namespace mlxn::models
