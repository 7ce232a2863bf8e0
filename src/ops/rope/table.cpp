#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/check_value.h"
#include "mlxn/ops/rope.h"

namespace mlxn {
namespace {

constexpr double kMaxFrequency = 65536;
constexpr std::int64_t kMaxHeadDim = 1 << 20;

Result<void> check_positive(std::string_view name, double value) {
  if (std::isfinite(value) && value > 0) return {};
  return make_error(ErrorCode::invalid_argument, "rope: {} is {}, wanted a finite number above 0", name, value);
}
Result<void> check_context(std::int64_t value) {
  if (value > 0) return {};
  return make_error(ErrorCode::invalid_argument, "rope: original_context is {}, wanted a number above 0", value);
}

/// The pair, counted in rotated dimensions, that turns `turns` times within the original context.
double yarn_pair(double dims, const RopeYarn& yarn, double base, double turns) {
  return dims * std::log(static_cast<double>(yarn.original_context) / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
}

struct Scaler {
  double dims, base;  ///< frequency p is base^(-2p / dims)

  Result<void> operator()(std::monostate, std::span<double>, double&) const { return {}; }
  Result<void> operator()(const RopeLinear& linear, std::span<double> frequencies, double&) const {
    MLXN_CHECK(check_positive("the factor", linear.factor));
    for (double& f : frequencies) f /= linear.factor;
    return {};
  }
  Result<void> operator()(const RopeYarn& yarn, std::span<double> frequencies, double& magnitude) const {
    MLXN_CHECK(check_positive("the factor", yarn.factor));
    MLXN_CHECK(check_context(yarn.original_context));
    MLXN_CHECK(check_positive("attn_factor", yarn.attn_factor));
    MLXN_CHECK(check_positive("beta_fast", yarn.beta_fast));
    MLXN_CHECK(check_positive("beta_slow", yarn.beta_slow));
    if (!std::isfinite(yarn.ext_factor)) {
      return make_error(ErrorCode::invalid_argument, "rope: ext_factor is {}, wanted a finite number", yarn.ext_factor);
    }
    if (base == 1) return make_error(ErrorCode::invalid_argument, "rope: base is 1, which yarn does not take");
    magnitude = yarn.attn_factor;
    if (yarn.ext_factor != 0) magnitude *= 1 + 0.1 * std::log(yarn.factor);
    const double low = std::max(0.0, std::floor(yarn_pair(dims, yarn, base, yarn.beta_fast)));
    const double high = std::min(dims - 1, std::ceil(yarn_pair(dims, yarn, base, yarn.beta_slow)));
    for (std::size_t p = 0; p < frequencies.size(); ++p) {
      const double along = (static_cast<double>(p) - low) / std::max(0.001, high - low);
      const double kept = (1 - std::clamp(along, 0.0, 1.0)) * yarn.ext_factor;
      frequencies[p] *= (1 - kept) / yarn.factor + kept;
    }
    return {};
  }
  Result<void> operator()(const RopeLlama3& llama, std::span<double> frequencies, double&) const {
    MLXN_CHECK(check_positive("the factor", llama.factor));
    MLXN_CHECK(check_positive("low", llama.low));
    MLXN_CHECK(check_positive("high", llama.high));
    MLXN_CHECK(check_context(llama.original_context));
    if (llama.high <= llama.low) {
      return make_error(ErrorCode::invalid_argument, "rope: high is {}, wanted a number above low, {}", llama.high, llama.low);
    }
    const auto context = static_cast<double>(llama.original_context);
    for (double& f : frequencies) {
      const double wavelength = 2 * std::numbers::pi / f;
      if (wavelength < context / llama.high) continue;
      if (wavelength > context / llama.low) {
        f /= llama.factor;
      } else {
        const double t = (context / wavelength - llama.low) / (llama.high - llama.low);
        f *= (1 - t) / llama.factor + t;
      }
    }
    return {};
  }
};

}  // namespace

Result<RopeTable> RopeTable::make(const Device& device, const RopeConfig& config) {
  return detail::guarded([&]() -> Result<RopeTable> {
    if (!device.defined()) return make_error(ErrorCode::invalid_argument, "rope: the device is empty");
    if (config.head_dim <= 0 || config.head_dim > kMaxHeadDim) {
      return make_error(ErrorCode::bad_shape, "rope: head_dim is {}, wanted 1 to {}", config.head_dim, kMaxHeadDim);
    }
    MLXN_CHECK(check_enum("rope", "pairing", config.pairing, RopePairing::halves));
    const std::int64_t rotated = config.rotated_dims == 0 ? config.head_dim : config.rotated_dims;
    if (rotated < 0 || rotated % 2 != 0 || rotated > config.head_dim) {
      return make_error(ErrorCode::bad_shape, "rope: rotated_dims is {}, wanted an even number up to head_dim, {}", rotated,
                        config.head_dim);
    }
    const std::int64_t pairs = rotated / 2;
    const std::int64_t offset = config.split_offset == 0 ? pairs : config.split_offset;
    if (config.pairing == RopePairing::halves && (offset < pairs || offset + pairs > config.head_dim)) {
      return make_error(ErrorCode::bad_shape, "rope: split_offset is {}, wanted {} to {}", offset, pairs, config.head_dim - pairs);
    }
    if (config.frequency_denominator < 0) {
      return make_error(ErrorCode::invalid_argument, "rope: frequency_denominator is {}, wanted a number above 0",
                        config.frequency_denominator);
    }
    MLXN_CHECK(check_positive("base", config.base));
    const auto factors = config.frequency_factors;
    if (!factors.empty() && factors.size() != static_cast<std::size_t>(pairs)) {
      return make_error(ErrorCode::bad_shape, "rope: {} frequency factors, wanted one for each of {} pairs", factors.size(), pairs);
    }
    const auto dims = static_cast<double>(config.frequency_denominator == 0 ? rotated : config.frequency_denominator);
    std::vector<double> frequencies(static_cast<std::size_t>(pairs));
    for (std::size_t p = 0; p < frequencies.size(); ++p) {
      frequencies[p] = std::pow(config.base, -2.0 * static_cast<double>(p) / dims);
      if (factors.empty()) continue;
      if (!(factors[p] > 0)) {
        return make_error(ErrorCode::invalid_argument, "rope: frequency factor {} is {}, wanted a number above 0", p, factors[p]);
      }
      frequencies[p] /= double{factors[p]};
    }
    double magnitude = 1;
    MLXN_CHECK(std::visit([&](const auto& s) { return Scaler{dims, config.base}(s, frequencies, magnitude); },
                          config.scaling));
    magnitude *= config.magnitude;
    MLXN_CHECK(check_positive("the magnitude", magnitude));
    std::vector<float> rounded(frequencies.size());
    for (std::size_t p = 0; p < rounded.size(); ++p) {
      if (!std::isfinite(frequencies[p]) || std::fabs(frequencies[p]) > kMaxFrequency) {
        return make_error(ErrorCode::invalid_argument, "rope: the frequency of pair {} is {}, wanted at most {}", p,
                          frequencies[p], kMaxFrequency);
      }
      rounded[p] = static_cast<float>(frequencies[p]);
    }

    RopeTable table;
    if (pairs > 0) {
      MLXN_TRY(table.inv_freq_, device.allocate(DType::f32, {pairs}));
      MLXN_CHECK(device.upload(table.inv_freq_, std::as_bytes(std::span(rounded))));
    }
    table.head_dim_ = config.head_dim;
    table.pairs_ = pairs;
    table.split_offset_ = config.pairing == RopePairing::halves ? offset : 1;
    table.pairing_ = config.pairing;
    table.magnitude_ = static_cast<float>(magnitude);
    return table;
  });
}

}  // namespace mlxn
