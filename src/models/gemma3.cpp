// Gemma 3, arXiv:2503.19786: Gemma 2's blocks with normed heads instead of soft caps. Five layers with a window and a
// rotation of their own, of base 10000 and unscaled, come before each one that sees all.

#include <cmath>

#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Gemma3 final : public BlockDecoder {
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
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
    const std::string name = block_name(i);
    MLXN_TRY(Block block, Block::load(loader, name, info));
    MLXN_CHECK(block.attention.load_head_norms(loader, name, info, eps_));
    block.attention.rope = windows.of(i) > 0 ? local_rope : global_rope;
    block.attention.options.scale = 1 / std::sqrt(static_cast<float>(query_dim));
    block.attention.options.window = windows.of(i);
    MLXN_CHECK(block.load_post_norms(loader, name, info));
    MLXN_TRY(block.feed_forward, FeedForward::load(loader, name, info, MatmulGate::gelu));
    blocks_.push_back(std::move(block));
  }
  return {};
}

}  // namespace

std::unique_ptr<Decoder> make_gemma3() { return std::make_unique<Gemma3>(); }

}  // namespace mlxn::models
