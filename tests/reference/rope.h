#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "mlxn/ops/rope.h"
#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

/// The factor by which YaRN multiplies sines and cosines, as llama.cpp forms it.
inline double yarn_magnitude(const RopeYarn& y) {
  return y.attn_factor * (y.ext_factor != 0 ? 1 + 0.1 * std::log(y.factor) : 1);
}

/// The angle of pair p at a position, following ggml's own order of steps in float64: extrapolated angle, interpolated
/// angle, mix of the two.
inline double rope_angle(const RopeConfig& config, std::int64_t p, double position) {
  const double rotated = static_cast<double>(config.rotated_dims == 0 ? config.head_dim : config.rotated_dims);
  const double dims = config.frequency_denominator == 0 ? rotated : static_cast<double>(config.frequency_denominator);
  double factor = config.frequency_factors.empty() ? 1 : double{config.frequency_factors[static_cast<std::size_t>(p)]};
  const double frequency = std::pow(config.base, -2.0 * static_cast<double>(p) / dims);
  if (const auto* llama = std::get_if<RopeLlama3>(&config.scaling)) {
    const double wavelength = 2 * 3.14159265358979323846 / (frequency / factor);
    const auto context = static_cast<double>(llama->original_context);
    if (wavelength > context / llama->low) {
      factor *= llama->factor;
    } else if (wavelength >= context / llama->high) {
      const double t = (context / wavelength - llama->low) / (llama->high - llama->low);
      factor *= 1 / ((1 - t) / llama->factor + t);
    }
  }
  const double extrapolated = position * frequency / factor;
  if (const auto* linear = std::get_if<RopeLinear>(&config.scaling)) return extrapolated / linear->factor;
  const auto* yarn = std::get_if<RopeYarn>(&config.scaling);
  if (yarn == nullptr) return extrapolated;
  const double interpolated = extrapolated / yarn->factor;
  if (yarn->ext_factor == 0) return interpolated;
  const auto correction = [&](double turns) {
    return dims * std::log(static_cast<double>(yarn->original_context) / (turns * 2 * 3.14159265358979323846)) /
           (2 * std::log(config.base));
  };
  const double low = std::max(0.0, std::floor(correction(yarn->beta_fast)));
  const double high = std::min(dims - 1, std::ceil(correction(yarn->beta_slow)));
  const double y = (static_cast<double>(p) - low) / std::max(0.001, high - low);
  const double mix = (1 - std::min(1.0, std::max(0.0, y))) * yarn->ext_factor;
  return interpolated * (1 - mix) + extrapolated * mix;
}

/// One head of one token. Frequencies are rounded to f32, as the contract has it; everything else is float64.
inline std::vector<Reference> rope_row(const RopeConfig& config, std::span<const float> x, std::int32_t position, bool inverse) {
  const std::int64_t pairs = (config.rotated_dims == 0 ? config.head_dim : config.rotated_dims) / 2;
  double magnitude = 1;
  if (const auto* yarn = std::get_if<RopeYarn>(&config.scaling)) magnitude = yarn_magnitude(*yarn);
  if (inverse) magnitude = 1 / magnitude;
  std::vector<Reference> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i].value = x[i];
  for (std::int64_t p = 0; p < pairs; ++p) {
    const double frequency = static_cast<float>(rope_angle(config, p, 1));
    const double angle = (inverse ? -1.0 : 1.0) * static_cast<double>(position) * frequency;
    std::int64_t first = 2 * p, second = 2 * p + 1;
    if (config.pairing == RopePairing::halves) {
      first = p;
      second = p + (config.split_offset == 0 ? pairs : config.split_offset);
    }
    const double a = x[static_cast<std::size_t>(first)], b = x[static_cast<std::size_t>(second)];
    const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
    const double size = (std::fabs(a) + std::fabs(b)) * magnitude;
    y[static_cast<std::size_t>(first)] = {a * c - b * s, size};
    y[static_cast<std::size_t>(second)] = {b * c + a * s, size};
  }
  return y;
}

}  // namespace mlxn::test::reference
