// Phi-3, Phi-3.5 and Phi-4, arXiv:2404.14219: Llama's blocks with one product for queries, keys and values and one for the
// two halves of the feed-forward network; long contexts by LongRoPE.

#include "mlxn/ops/add.h"
#include "mlxn/ops/rms_norm.h"
#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Phi3 final : public Decoder {
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

Result<void> Phi3::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  // The first files do not name the window that the models with a context of 4096 were trained with.
  const bool is_first_4k = architecture.context_length == 4096 && (architecture.block_count == 32 || architecture.block_count == 40);
  MLXN_TRY(const Windows windows, read_windows(loader.file(), architecture, is_first_4k ? 2047 : 0, 0));
  MLXN_TRY(const RopeTables rope, load_rope(loader, architecture, RopePairing::halves));
  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string block = block_name(i);
    Layer layer;
    MLXN_TRY(layer.attn_norm, loader.vector(block + "attn_norm.weight", info.dim));
    MLXN_TRY(layer.attention, SelfAttention::load(loader, block, info));
    layer.attention.rope = rope;
    layer.attention.options.window = windows.of(i);
    MLXN_TRY(layer.ffn_norm, loader.vector(block + "ffn_norm.weight", info.dim));
    MLXN_TRY(layer.feed_forward, FeedForward::load_fused(loader, block, info, Gate::silu));
    layers_.push_back(std::move(layer));
  }
  return {};
}

Result<void> Phi3::forward(CommandEncoder& encoder, const Step& step) const {
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

std::unique_ptr<Decoder> make_phi3() { return std::make_unique<Phi3>(); }

}  // namespace mlxn::models
