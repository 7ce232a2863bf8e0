// Gemma 2, arXiv:2408.00118: norms before and after each block, GeGLU, soft caps on the logits of attention and of the
// output, and windows on every other layer. Norm weights hold the +1 of the published checkpoints already.

#include <cmath>

#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Gemma2 final : public BlockDecoder {
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
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
    const std::string name = block_name(i);
    MLXN_TRY(Block block, Block::load(loader, name, info));
    block.attention.rope = rope;
    block.attention.options.scale = 1 / std::sqrt(static_cast<float>(query_dim));
    block.attention.options.softcap = static_cast<float>(attention_cap);
    block.attention.options.window = windows.of(i);
    MLXN_CHECK(block.load_post_norms(loader, name, info));
    MLXN_TRY(block.feed_forward, FeedForward::load(loader, name, info, MatmulGate::gelu));
    blocks_.push_back(std::move(block));
  }
  return {};
}

}  // namespace

std::unique_ptr<Decoder> make_gemma2() { return std::make_unique<Gemma2>(); }

}  // namespace mlxn::models
