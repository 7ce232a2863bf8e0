#pragma once

#include <cstdint>

#include "mlxn/ops/rope.h"
#include "models/loader.h"

namespace mlxn::models {

/// The rotary embedding of a model's layers: one table, or two of which the length of the context chooses. Models whose
/// context was extended by LongRoPE (arXiv:2402.13753) have one set of frequencies for contexts up to the original one and
/// another beyond.
struct RopeTables {
  RopeTable within, beyond;
  std::int64_t original_context = 0;

  [[nodiscard]] const RopeTable& table(std::int64_t context) const noexcept { return context > original_context ? beyond : within; }
};

/// What the metadata (rope.*) and the factors among the tensors (rope_freqs, rope_factors_short, rope_factors_long) describe.
[[nodiscard]] Result<RopeTables> load_rope(Loader& loader, const GgufArchitecture& architecture, RopePairing pairing);
/// Plain frequencies of another base, for layers that the metadata's scaling does not concern.
[[nodiscard]] Result<RopeTables> unscaled_rope(Loader& loader, const GgufArchitecture& architecture, RopePairing pairing,
                                               double base);

}  // namespace mlxn::models
