// Phi-3, Phi-3.5 and Phi-4, arXiv:2404.14219: Llama's blocks with one product for queries, keys and values and one for the
// two halves of the feed-forward network; long contexts by LongRoPE.

#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Phi3 final : public BlockDecoder {
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
};

Result<void> Phi3::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  // The first files do not name the window that the models with a context of 4096 were trained with.
  const bool is_first_4k = architecture.context_length == 4096 && (architecture.block_count == 32 || architecture.block_count == 40);
  MLXN_TRY(const Windows windows, read_windows(loader.file(), architecture, is_first_4k ? 2047 : 0, 0));
  MLXN_TRY(const RopeTables rope, load_rope(loader, architecture, RopePairing::halves));
  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string name = block_name(i);
    MLXN_TRY(Block block, Block::load(loader, name, info));
    block.attention.rope = rope;
    block.attention.options.window = windows.of(i);
    MLXN_TRY(block.feed_forward, FeedForward::load_fused(loader, name, info, MatmulGate::silu));
    blocks_.push_back(std::move(block));
  }
  return {};
}

}  // namespace

std::unique_ptr<Decoder> make_phi3() { return std::make_unique<Phi3>(); }

}  // namespace mlxn::models
