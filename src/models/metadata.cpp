#include "models/metadata.h"

#include <cmath>

#include "base/error.h"

namespace mlxn::models {
namespace {

constexpr std::int64_t kMaxHeadDim = 512;  // of attention()

}  // namespace

Result<std::int64_t> Metadata::count_or(std::string_view suffix, std::int64_t fallback, std::int64_t most) const {
  MLXN_TRY(const std::uint64_t value, file_.get_uint_or(key(suffix), static_cast<std::uint64_t>(fallback)));
  if (value <= static_cast<std::uint64_t>(most)) return static_cast<std::int64_t>(value);
  return make_error(ErrorCode::corrupt_file, "{}: key '{}' is {}, wanted at most {}", file_.label(), key(suffix), value, most);
}

Result<double> Metadata::number_or(std::string_view suffix, double fallback, double least, double most) const {
  MLXN_TRY(const double value, file_.get_float_or(key(suffix), fallback));
  if (value >= least && value <= most) return value;
  return make_error(ErrorCode::corrupt_file, "{}: key '{}' is {}, wanted {} to {}", file_.label(), key(suffix), value, least, most);
}

Result<double> Metadata::positive_or(std::string_view suffix, double fallback) const {
  MLXN_TRY(const double value, file_.get_float_or(key(suffix), fallback));
  if (std::isfinite(value) && value > 0) return value;
  return make_error(ErrorCode::corrupt_file, "{}: key '{}' is {}, wanted a finite number above 0", file_.label(), key(suffix), value);
}

Result<GgufArchitecture> read_architecture(const GgufFile& file, ModelInfo& info) {
  MLXN_TRY(GgufArchitecture a, gguf_architecture(file));
  const auto unsupported = [&]<class... Args>(fmt::format_string<Args...> text, Args&&... args) {
    return make_error(ErrorCode::unsupported, "{}: {}", file.label(), fmt::format(text, std::forward<Args>(args)...));
  };
  if (a.expert_count != 0) return unsupported("a {} model with {} experts; only dense ones run yet", a.name, a.expert_count);
  if (a.key_length != a.value_length) {
    return unsupported("keys of {} and values of {} elements; only equal ones run yet", a.key_length, a.value_length);
  }
  if (a.key_length > kMaxHeadDim) return unsupported("heads of {} elements, wanted at most {}", a.key_length, kMaxHeadDim);
  if (a.head_count[0] == 0) return unsupported("layer 0 has no attention; only layers with heads run yet");
  for (std::uint64_t i = 1; i < a.block_count; ++i) {
    if (a.head_count[i] != a.head_count[0] || a.head_count_kv[i] != a.head_count_kv[0] ||
        a.feed_forward_length[i] != a.feed_forward_length[0]) {
      return unsupported("layer {} differs in size from layer 0; only equal layers run yet", i);
    }
  }
  if (a.feed_forward_length[0] == 0) {
    return make_error(ErrorCode::corrupt_file, "{}: the key '{}.feed_forward_length' is missing", file.label(), a.name);
  }
  if (a.rope_dimension_count == 0 || a.rope_dimension_count % 2 != 0) {
    return make_error(ErrorCode::corrupt_file, "{}: key '{}.rope.dimension_count' is {}, wanted an even number above 0", file.label(),
                      a.name, a.rope_dimension_count);
  }
  if (a.vocab_size == 0) {
    return make_error(ErrorCode::corrupt_file, "{}: neither a vocabulary nor '{}.vocab_size'", file.label(), a.name);
  }
  info.dim = static_cast<std::int64_t>(a.embedding_length);
  info.layers = static_cast<std::int64_t>(a.block_count);
  info.heads = static_cast<std::int64_t>(a.head_count[0]);
  info.kv_heads = static_cast<std::int64_t>(a.head_count_kv[0]);
  info.head_dim = static_cast<std::int64_t>(a.key_length);
  info.ff_dim = static_cast<std::int64_t>(a.feed_forward_length[0]);
  info.vocab = static_cast<std::int64_t>(a.vocab_size);
  info.context = static_cast<std::int64_t>(a.context_length);
  return a;
}

Result<Windows> read_windows(const GgufFile& file, const GgufArchitecture& architecture, std::int64_t default_size,
                             std::int64_t default_period) {
  const Metadata metadata(file, architecture.name);
  MLXN_TRY(const std::int64_t size, metadata.count_or("attention.sliding_window", default_size, kMaxPositions));
  Windows windows;
  windows.windowed.assign(architecture.block_count, false);
  if (size == 0) return windows;
  windows.size = size;
  const std::string key = metadata.key("attention.sliding_window_pattern");
  if (const GgufValue* value = file.find(key); value != nullptr && value->is_array()) {
    MLXN_TRY(windows.windowed, file.get_bools_per_layer(key, architecture.block_count));
    return windows;
  }
  MLXN_TRY(const std::int64_t period, metadata.count_or("attention.sliding_window_pattern", default_period, kMaxPositions));
  for (std::size_t i = 0; i < windows.windowed.size(); ++i) {
    windows.windowed[i] = period == 0 || (static_cast<std::int64_t>(i) + 1) % period != 0;
  }
  return windows;
}

}  // namespace mlxn::models
