#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "mlxn/dtype.h"
#include "quant/blocks.h"

// The data of the seed acceptance tests: a generator and three pack rules of their own. They are not the encoders of the
// library (Q4_0 takes a positive scale, Q6_K scales from maxima alone), all arithmetic is f32, rounding is half away from
// zero.

namespace mlxn::test {

/// A linear congruential generator of 64 bits. The shift leaves 31 bits, so values lie in [-0.5, 0].
class Lcg {
 public:
  explicit Lcg(std::uint64_t seed) noexcept : state_(seed) {}
  [[nodiscard]] float next() noexcept {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(state_ >> 33) / 4294967296.0f - 0.5f;
  }
  [[nodiscard]] std::vector<float> take(std::size_t count) {
    std::vector<float> x(count);
    for (float& v : x) v = next();
    return x;
  }

 private:
  std::uint64_t state_;
};

namespace detail {

inline float magnitude(std::span<const float> x) noexcept {
  float most = 0.0f;
  for (const float v : x) most = std::max(most, std::fabs(v));
  return most;
}
inline int rounded(float x, int low, int high) noexcept {
  return static_cast<int>(std::clamp(std::round(x), static_cast<float>(low), static_cast<float>(high)));
}

inline quant::BlockQ4_0 seed_q4_0(std::span<const float> x) noexcept {
  const float d = magnitude(x) / 7.0f;
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  quant::BlockQ4_0 b = {};
  b.d = f16(d).bits;
  for (std::size_t i = 0; i < 16; ++i) {
    b.qs[i] = static_cast<std::uint8_t>(rounded(x[i] * id + 8.0f, 0, 15) | rounded(x[i + 16] * id + 8.0f, 0, 15) << 4);
  }
  return b;
}

inline quant::BlockQ8_0 seed_q8_0(std::span<const float> x) noexcept {
  const float d = magnitude(x) / 127.0f;
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  quant::BlockQ8_0 b = {};
  b.d = f16(d).bits;
  for (std::size_t i = 0; i < 32; ++i) b.qs[i] = static_cast<std::int8_t>(rounded(x[i] * id, -128, 127));
  return b;
}

// The quants use the scale before it is rounded to f16.
inline quant::BlockQ6_K seed_q6_K(std::span<const float> x) noexcept {
  const float d = magnitude(x) / (32.0f * 127.0f);
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  quant::BlockQ6_K b = {};
  b.d = f16(d).bits;
  for (std::size_t i = 0; i < 256; ++i) {
    const std::size_t s = i / 16;
    if (i % 16 == 0) b.scales[s] = static_cast<std::int8_t>(rounded(magnitude(x.subspan(i, 16)) * id / 32.0f, -128, 127));
    const float step = d * static_cast<float>(b.scales[s]);
    const int q = step != 0.0f ? rounded(x[i] * (1.0f / step) + 32.0f, 0, 63) : 32;
    const std::size_t h = i / 128;
    const std::size_t g = i % 128 / 32;
    const std::size_t l = i % 32;
    b.ql[64 * h + 32 * (g & 1) + l] |= static_cast<std::uint8_t>((q & 15) << (4 * (g >> 1)));
    b.qh[32 * h + l] |= static_cast<std::uint8_t>((q >> 4) << (2 * g));
  }
  return b;
}

template <class Block>
void append(std::vector<std::byte>& out, const Block& block) {
  const auto bytes = std::as_bytes(std::span(&block, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace detail

/// Packs whole blocks of x by the seed tests' rule for q4_0, q8_0 or q6_K.
inline std::vector<std::byte> seed_pack(DType type, std::span<const float> x) {
  std::vector<std::byte> out;
  const std::size_t unit = block_elems(type);
  for (std::size_t i = 0; i < x.size(); i += unit) {
    const std::span<const float> block = x.subspan(i, unit);
    switch (type) {
      case DType::q4_0: detail::append(out, detail::seed_q4_0(block)); break;
      case DType::q8_0: detail::append(out, detail::seed_q8_0(block)); break;
      case DType::q6_K: detail::append(out, detail::seed_q6_K(block)); break;
      default: throw std::logic_error("seed_pack has no rule for this type");
    }
  }
  return out;
}

}  // namespace mlxn::test
