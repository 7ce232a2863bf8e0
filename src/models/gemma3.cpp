// Gemma 3, arXiv:2503.19786: Gemma 2's blocks with normed heads instead of soft caps. Five layers with a window and a
// rotation of their own, of base 10000 and unscaled, come before each one that sees all.

#include <cmath>

#include "mlxn/ops/add.h"
#include "mlxn/ops/rms_norm.h"
#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Gemma3 final : public Decoder {
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

Result<void> Gemma3::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  const Metadata metadata(loader.file(), architecture.name);
  MLXN_TRY(const double output_cap, metadata.number_or("final_logit_softcapping", 0, 0, 1e6));
  MLXN_TRY(const double local_base, metadata.positive_or("rope.freq_base_swa", 10000));
  MLXN_TRY(const Windows windows, read_windows(loader.file(), architecture, 0, 6));
  MLXN_TRY(const RopeTables global_rope, load_rope(loader, architecture, RopePairing::halves));
  MLXN_TRY(const RopeTables local_rope, unscaled_rope(loader, architecture, RopePairing::halves, local_base));
  // The 27B model, which 62 layers tell, scales by the width of all heads together.
  const std::int64_t query_dim = info.layers == 62 ? info.dim / info.heads : info.head_dim;

  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  embeddings_.scale = std::sqrt(static_cast<float>(info.dim));
  embeddings_.softcap = static_cast<float>(output_cap);
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string block = block_name(i);
    Layer layer;
    MLXN_TRY(layer.attn_norm, loader.vector(block + "attn_norm.weight", info.dim));
    MLXN_TRY(layer.attention, SelfAttention::load(loader, block, info));
    MLXN_CHECK(layer.attention.load_head_norms(loader, block, info, eps_));
    layer.attention.rope = windows.of(i) > 0 ? local_rope : global_rope;
    layer.attention.options.scale = 1 / std::sqrt(static_cast<float>(query_dim));
    layer.attention.options.window = windows.of(i);
    MLXN_TRY(layer.post_attention_norm, loader.vector(block + "post_attention_norm.weight", info.dim));
    MLXN_TRY(layer.ffn_norm, loader.vector(block + "ffn_norm.weight", info.dim));
    MLXN_TRY(layer.feed_forward, FeedForward::load(loader, block, info, Gate::gelu));
    MLXN_TRY(layer.post_ffw_norm, loader.vector(block + "post_ffw_norm.weight", info.dim));
    layers_.push_back(std::move(layer));
  }
  return {};
}

Result<void> Gemma3::forward(CommandEncoder& encoder, const Step& step) const {
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

std::unique_ptr<Decoder> make_gemma3() { return std::make_unique<Gemma3>(); }

}  // namespace mlxn::models
