#pragma once

#include <cstdint>
#include <span>
#include <variant>

#include "mlxn/encoder.h"

namespace mlxn {

/// Which elements of a head turn together. In ggml's words: adjacent is NORM, halves is NEOX.
enum class RopePairing : std::uint8_t {
  adjacent,  ///< (2p, 2p + 1)
  halves,    ///< (p, p + split_offset)
};

/// Positions divided by a factor.
struct RopeLinear {
  double factor = 1;
};
/// YaRN, arXiv:2309.00071: slow pairs are interpolated, fast ones left alone, with a ramp between. As in llama.cpp the
/// magnitude is attn_factor * (1 + 0.1 ln factor), the second term only if ext_factor is not 0.
struct RopeYarn {
  double factor = 1;
  std::int64_t original_context = 0;
  double ext_factor = 1;
  double attn_factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
};
/// Llama 3.1: pairs whose wavelength passes original_context / low are slowed by `factor`, those below
/// original_context / high stay, with a smooth blend between.
struct RopeLlama3 {
  double factor = 8;
  double low = 1;
  double high = 4;
  std::int64_t original_context = 8192;
};
using RopeScaling = std::variant<std::monostate, RopeLinear, RopeYarn, RopeLlama3>;

struct RopeConfig {
  std::int64_t head_dim = 0;
  std::int64_t rotated_dims = 0;  ///< even, twice the number of pairs; 0: head_dim
  RopePairing pairing = RopePairing::adjacent;
  /// halves: distance of the two elements of a pair. 0: rotated_dims / 2, as ggml and Hugging Face have it; the
  /// proportional rule of partial rotation has head_dim / 2.
  std::int64_t split_offset = 0;
  double base = 10000;
  std::int64_t frequency_denominator = 0;      ///< d in base^(-2p/d); 0: rotated_dims
  std::span<const float> frequency_factors{};  ///< [rotated_dims / 2] divisors of the frequencies; empty: all 1
  RopeScaling scaling{};
  double magnitude = 1;  ///< of the turned pairs, beside what the scaling gives them
};

/// The frequencies of one configuration on one device.
class RopeTable {
 public:
  /// inv_freq[p] = base^(-2p/d) / frequency_factors[p], then scaled; formed in float64, rounded once to f32.
  /// Errors: bad_shape (odd or too large rotated_dims, pairs outside the head, length of the factors), invalid_argument
  /// (numbers out of their domain; a frequency that is not finite or above 65536), out_of_memory.
  [[nodiscard]] static Result<RopeTable> make(const Device& device, const RopeConfig& config);

  RopeTable() = default;
  [[nodiscard]] const Tensor& inv_freq() const noexcept { return inv_freq_; }  ///< f32 [pairs]; empty if nothing rotates
  [[nodiscard]] float magnitude() const noexcept { return magnitude_; }
  [[nodiscard]] std::int64_t head_dim() const noexcept { return head_dim_; }
  [[nodiscard]] std::int64_t pairs() const noexcept { return pairs_; }
  [[nodiscard]] std::int64_t split_offset() const noexcept { return split_offset_; }
  [[nodiscard]] RopePairing pairing() const noexcept { return pairing_; }

 private:
  Tensor inv_freq_;
  std::int64_t head_dim_ = 0, pairs_ = 0, split_offset_ = 0;
  RopePairing pairing_ = RopePairing::adjacent;
  float magnitude_ = 1;
};

enum class RopeDirection : std::uint8_t {
  forward,
  inverse,  ///< undoes forward: the angles are negated and the magnitude divides
};

/// y[t,h,:] = x[t,h,:] with every pair (a, b) turned by its angle:                  rotary position embedding, arXiv:2104.09864
///   angle = positions[t] * inv_freq[pair];  a' = (a cos - b sin) * magnitude;  b' = (b cos + a sin) * magnitude
///
/// x          [seq, heads, head_dim]  f32 f16 bf16; last axis contiguous, any strides on the others
/// positions  [seq]                   i32, contiguous; negative ones are legal
/// y          as x in shape and dtype; may be exactly x, any other overlap is an error
/// Numerics: the angle is the product in float64, reduced to an eighth of a turn in float64, so sine and cosine are within
/// 2e-7 for angles below 2^24 and 1e-6 below 2^31; the turn itself is in f32 and is rounded once, at the store.
/// Elements outside the pairs are copied. Every row depends on that row only, bit for bit.
/// Empty: seq == 0 or heads == 0 succeeds and writes nothing.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (an empty table), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> rope(CommandEncoder& encoder, const Tensor& x, const Tensor& positions, const RopeTable& table,
                                const Tensor& y, RopeDirection direction = RopeDirection::forward);

}  // namespace mlxn
