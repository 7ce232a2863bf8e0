// Qwen2 and Qwen2.5, arXiv:2407.10671: Llama's blocks with biases on queries, keys and values.

#include "mlxn/ops/add.h"
#include "mlxn/ops/rms_norm.h"
#include "models/layers.h"

namespace mlxn::models {
namespace {

class Qwen2 final : public Decoder {
 public:
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
  [[nodiscard]] Result<void> forward(CommandEncoder& encoder, const Step& step) const override;

 private:
  struct Layer {
    Tensor attn_norm;  // [dim]
    SelfAttention attention;
    Tensor ffn_norm;  // [dim]
    FeedForward feed_forward;
  };
  Embeddings embeddings_;
  std::vector<Layer> layers_;
  float eps_ = 0;
};

Result<void> Qwen2::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  MLXN_TRY(const RopeTables rope, load_rope(loader, architecture, RopePairing::halves));
  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string block = block_name(i);
    Layer layer;
    MLXN_TRY(layer.attn_norm, loader.vector(block + "attn_norm.weight", info.dim));
    MLXN_TRY(layer.attention, SelfAttention::load(loader, block, info));
    MLXN_CHECK(layer.attention.require_biases(loader, block));
    layer.attention.rope = rope;
    MLXN_TRY(layer.ffn_norm, loader.vector(block + "ffn_norm.weight", info.dim));
    MLXN_TRY(layer.feed_forward, FeedForward::load(loader, block, info, Gate::silu));
    layers_.push_back(std::move(layer));
  }
  return {};
}

Result<void> Qwen2::forward(CommandEncoder& encoder, const Step& step) const {
  const Workspace& w = step.work;
  MLXN_CHECK(embeddings_.embed(encoder, step));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    MLXN_CHECK(rms_norm(encoder, w.x, layer.attn_norm, w.h, eps_));
    MLXN_CHECK(layer.attention.forward(encoder, step.cache->layers[i], step));
    MLXN_CHECK(add(encoder, w.x, w.h, w.x));
    MLXN_CHECK(rms_norm(encoder, w.x, layer.ffn_norm, w.h, eps_));
    MLXN_CHECK(layer.feed_forward.forward(encoder, step));
    MLXN_CHECK(add(encoder, w.x, w.h, w.x));
  }
  return embeddings_.unembed(encoder, step);
}

}  // namespace

std::unique_ptr<Decoder> make_qwen2() { return std::make_unique<Qwen2>(); }

}  // namespace mlxn::models
