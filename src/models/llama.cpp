// Llama 2 and 3, Mistral: pre-normed blocks of grouped-query attention with rotary positions and a SwiGLU feed-forward
// network, arXiv:2307.09288 and 2407.21783. Files pair neighbouring elements for the rotation: the converters permute the
// rows of Q and K so. Mistral's window (arXiv:2310.06825) holds for every layer.

#include "base/error.h"
#include "models/layers.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

class Llama final : public BlockDecoder {
  [[nodiscard]] Result<void> load(Loader& loader, const GgufArchitecture& architecture, const ModelInfo& info) override;
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
    const std::string name = block_name(i);
    MLXN_TRY(Block block, Block::load(loader, name, info));
    block.attention.rope = rope;
    block.attention.options.window = windows.of(i);
    MLXN_TRY(block.feed_forward, FeedForward::load(loader, name, info, MatmulGate::silu));
    blocks_.push_back(std::move(block));
  }
  return {};
}

}  // namespace

std::unique_ptr<Decoder> make_llama() { return std::make_unique<Llama>(); }

}  // namespace mlxn::models
