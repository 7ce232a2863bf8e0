// Llama 2 and 3, Mistral: pre-normed blocks of grouped-query attention with rotary positions and a SwiGLU feed-forward
// network, arXiv:2307.09288 and 2407.21783. Files pair neighbouring elements for the rotation: the converters permute the
// rows of Q and K so. Mistral's window (arXiv:2310.06825) holds for every layer.

#include "base/error.h"
#include "mlxn/ops/add.h"
#include "mlxn/ops/rms_norm.h"
#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Llama final : public Decoder {
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

Result<void> Llama::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  if (architecture.rope_dimension_count != architecture.key_length) {
    return make_error(ErrorCode::corrupt_file, "{}: key '{}.rope.dimension_count' is {}, wanted all {} elements of a head",
                      loader.file().label(), architecture.name, architecture.rope_dimension_count, architecture.key_length);
  }
  MLXN_TRY(const Windows windows, read_windows(loader.file(), architecture, 0, 0));
  MLXN_TRY(const RopeTables rope, load_rope(loader, architecture, RopePairing::adjacent));
  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string block = block_name(i);
    Layer layer;
    MLXN_TRY(layer.attn_norm, loader.vector(block + "attn_norm.weight", info.dim));
    MLXN_TRY(layer.attention, SelfAttention::load(loader, block, info));
    layer.attention.rope = rope;
    layer.attention.options.window = windows.of(i);
    MLXN_TRY(layer.ffn_norm, loader.vector(block + "ffn_norm.weight", info.dim));
    MLXN_TRY(layer.feed_forward, FeedForward::load(loader, block, info, Gate::silu));
    layers_.push_back(std::move(layer));
  }
  return {};
}

Result<void> Llama::forward(CommandEncoder& encoder, const Step& step) const {
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

std::unique_ptr<Decoder> make_llama() { return std::make_unique<Llama>(); }

}  // namespace mlxn::models
