#include "models/rope_tables.h"

#include <cmath>

#include "base/error.h"
#include "formats/printable.h"
#include "models/host_copy.h"
#include "models/metadata.h"

namespace mlxn::models {
namespace {

RopeConfig plain(const GgufArchitecture& architecture, RopePairing pairing, double base) {
  RopeConfig config;
  config.head_dim = static_cast<std::int64_t>(architecture.key_length);
  config.rotated_dims = static_cast<std::int64_t>(architecture.rope_dimension_count);
  config.pairing = pairing;
  config.base = base;
  return config;
}

/// 1 + multiplier * ln(factor) / 10 for factors above 1: how YaRN grows the magnitude with the context.
double yarn_growth(double factor, double multiplier) { return factor <= 1 ? 1 : 1 + 0.1 * multiplier * std::log(factor); }

Result<RopeYarn> read_yarn(const Metadata& metadata, const GgufArchitecture& architecture, double factor, double attn_factor) {
  RopeYarn yarn;
  yarn.factor = factor;
  MLXN_TRY(yarn.original_context, metadata.count_or("rope.scaling.original_context_length",
                                                    static_cast<std::int64_t>(architecture.context_length), kMaxPositions));
  MLXN_TRY(const double ext, metadata.number_or("rope.scaling.yarn_ext_factor", -1, -1, 1e6));
  MLXN_TRY(yarn.beta_fast, metadata.positive_or("rope.scaling.yarn_beta_fast", 32));
  MLXN_TRY(yarn.beta_slow, metadata.positive_or("rope.scaling.yarn_beta_slow", 1));
  MLXN_TRY(const double multiplier, metadata.number_or("rope.scaling.yarn_log_multiplier", 0, 0, 1e6));
  MLXN_TRY(const double magnitude, metadata.positive_or("rope.scaling.yarn_attn_factor", 1));
  yarn.ext_factor = ext < 0 ? 1 : ext;
  if (yarn.ext_factor == 0) {
    yarn.attn_factor = attn_factor * magnitude;
  } else {
    // The growth replaces the magnitude of the file; the table multiplies by 1 + ln(factor) / 10 itself.
    const double growth = yarn_growth(factor, 1) / (multiplier == 0 ? 1 : yarn_growth(factor, multiplier));
    yarn.attn_factor = attn_factor * growth / (1 + 0.1 * std::log(factor));
  }
  return yarn;
}

/// The numbers come from the file, so what is wrong with them is wrong with it.
Result<RopeTable> make_table(const Loader& loader, const RopeConfig& config) {
  auto table = RopeTable::make(loader.device(), config);
  if (table || table.error().code() == ErrorCode::out_of_memory) return table;
  return make_error(ErrorCode::corrupt_file, "{}: {}", loader.file().label(), table.error().message());
}

}  // namespace

Result<RopeTables> load_rope(Loader& loader, const GgufArchitecture& architecture, RopePairing pairing) {
  const Metadata metadata(loader.file(), architecture.name);
  RopeConfig config = plain(architecture, pairing, architecture.rope_freq_base);
  MLXN_TRY(const double old_factor, metadata.number_or("rope.scale_linear", 0, 0, 1e6));
  MLXN_TRY(const double given_factor, metadata.number_or("rope.scaling.factor", old_factor, 0, 1e6));
  const double factor = given_factor == 0 ? 1 : given_factor;
  MLXN_TRY(const double attn_factor, metadata.positive_or("rope.scaling.attn_factor", 1));
  MLXN_TRY(const std::string_view type, loader.file().get_string_or(metadata.key("rope.scaling.type"), "linear"));
  if (type == "yarn") {
    MLXN_TRY(config.scaling, read_yarn(metadata, architecture, factor, attn_factor));
  } else if (type == "linear" || type == "longrope") {
    if (factor != 1) config.scaling = RopeLinear{factor};
    config.magnitude = attn_factor;
  } else if (type == "none") {
    config.magnitude = attn_factor;
  } else {
    return make_error(ErrorCode::unsupported, "{}: key '{}' is {}, wanted none, linear, yarn or longrope", loader.file().label(),
                      metadata.key("rope.scaling.type"), excerpt(type));
  }

  const auto make = [&](const Tensor& factors) -> Result<RopeTable> {
    if (!factors.defined()) return make_table(loader, config);
    MLXN_TRY(const std::vector<float> values, to_host<float>(factors));
    config.frequency_factors = values;
    return make_table(loader, config);
  };
  const std::int64_t pairs = config.rotated_dims / 2;
  RopeTables tables;
  MLXN_TRY(tables.original_context, metadata.count_or("rope.scaling.original_context_length",
                                                      static_cast<std::int64_t>(architecture.context_length), kMaxPositions));
  if (loader.has("rope_factors_short.weight") || loader.has("rope_factors_long.weight")) {
    MLXN_TRY(const Tensor within, loader.vector("rope_factors_short.weight", pairs));
    MLXN_TRY(const Tensor beyond, loader.vector("rope_factors_long.weight", pairs));
    MLXN_TRY(tables.within, make(within));
    MLXN_TRY(tables.beyond, make(beyond));
    return tables;
  }
  // Llama 3.1 and later carry their scaling as one divisor per pair.
  MLXN_TRY(const Tensor factors, loader.optional_vector("rope_freqs.weight", pairs));
  MLXN_TRY(tables.within, make(factors));
  tables.beyond = tables.within;
  return tables;
}

Result<RopeTables> unscaled_rope(Loader& loader, const GgufArchitecture& architecture, RopePairing pairing,
                                 double base) {
  RopeTables tables;
  MLXN_TRY(tables.within, make_table(loader, plain(architecture, pairing, base)));
  tables.beyond = tables.within;
  return tables;
}

}  // namespace mlxn::models
