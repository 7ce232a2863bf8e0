#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mlxn/synth.h"

namespace mlxn::models {

/// How an architecture's files differ from one another besides sizes.
struct SynthTraits {
  bool qkv_bias = false;      ///< bias vectors on q, k and v
  bool qk_norm = false;       ///< a norm per head on q and k
  bool post_norms = false;    ///< norms after attention and feed-forward
  bool fused = false;         ///< one matrix for q, k, v and one for gate and up
};
/// Errors: invalid_argument (unknown architecture).
[[nodiscard]] Result<SynthTraits> synth_traits(std::string_view architecture);

/// What a tensor's random numbers are like.
enum class SynthFill : std::uint8_t {
  matrix,        ///< blocks of the model's type, variance 1 / ne[0]
  norm,          ///< f32 about 1
  bias,          ///< f32 about 0
  rope_factors,  ///< f32: the divisors of Llama 3.1's rotation
};
struct SynthTensor {
  std::string name;
  std::vector<std::uint64_t> ne;  // innermost first
  SynthFill fill;
};
/// All tensors in file order. kv_heads and head_dim must be set.
[[nodiscard]] Result<std::vector<SynthTensor>> synth_tensors(const SynthModel& model);

/// Writes general.* and the architecture's keys. kv_heads and head_dim must be set.
[[nodiscard]] Result<void> add_architecture(GgufWriter& writer, const SynthModel& model, DType type);

}  // namespace mlxn::models
