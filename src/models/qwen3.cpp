// Qwen3, arXiv:2505.09388: Llama's blocks whose queries and keys are normed head by head before the rotation.

#include "models/layers.h"

namespace mlxn::models {
namespace {

class Qwen3 final : public BlockDecoder {
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
};

Result<void> Qwen3::load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) {
  eps_ = static_cast<float>(architecture.rms_epsilon);
  MLXN_TRY(const RopeTables rope, load_rope(loader, architecture, RopePairing::halves));
  MLXN_TRY(embeddings_, Embeddings::load(loader, info, eps_));
  for (std::int64_t i = 0; i < info.layers; ++i) {
    const std::string name = block_name(i);
    MLXN_TRY(Block block, Block::load(loader, name, info));
    MLXN_CHECK(block.attention.load_head_norms(loader, name, info, eps_));
    block.attention.rope = rope;
    MLXN_TRY(block.feed_forward, FeedForward::load(loader, name, info, MatmulGate::silu));
    blocks_.push_back(std::move(block));
  }
  return {};
}

}  // namespace

std::unique_ptr<Decoder> make_qwen3() { return std::make_unique<Qwen3>(); }

}  // namespace mlxn::models
