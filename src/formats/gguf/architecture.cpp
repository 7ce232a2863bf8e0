#include <cmath>

#include "base/error.h"
#include "formats/gguf/cursor.h"
#include "formats/gguf/rules.h"
#include "formats/named.h"
#include "formats/printable.h"
#include "mlxn/gguf.h"

namespace mlxn {
namespace {

constexpr std::size_t kMaxName = 64;  // of the architecture, with which its keys begin
constexpr std::uint64_t kMaxBlocks = 1024;
constexpr std::uint64_t kMaxLength = std::uint64_t{1} << 20;  // embedding and head lengths
constexpr std::uint64_t kMaxHidden = std::uint64_t{1} << 24;  // feed-forward lengths
constexpr std::uint64_t kMaxHeads = std::uint64_t{1} << 16;
constexpr std::uint64_t kMaxContext = std::uint64_t{1}
                                      << 31;  // positions are signed 32-bit numbers in kernels
constexpr std::uint64_t kMaxVocabulary = std::uint64_t{1} << 31;
constexpr std::uint64_t kMaxExperts = 4096;

/// Reads the keys of one architecture: "<name>.<suffix>".
struct Keys {
  const GgufFile& file;
  std::string_view architecture;

  [[nodiscard]] std::string key(std::string_view suffix) const {
    return fmt::format("{}.{}", architecture, suffix);
  }

  [[nodiscard]] Result<std::uint64_t> checked(std::string_view suffix, std::uint64_t value,
                                              std::uint64_t least, std::uint64_t most) const {
    if (value >= least && value <= most) return value;
    return gguf::corrupt("V15", "key '{}' is {}, wanted {} to {}", key(suffix), value, least, most);
  }
  [[nodiscard]] Result<std::uint64_t> size(std::string_view suffix, std::uint64_t least,
                                           std::uint64_t most) const {
    MLXN_TRY(const std::uint64_t value, file.get_uint(key(suffix)));
    return checked(suffix, value, least, most);
  }
  [[nodiscard]] Result<std::uint64_t> size_or(std::string_view suffix, std::uint64_t fallback,
                                              std::uint64_t least, std::uint64_t most) const {
    MLXN_TRY(const std::uint64_t value, file.get_uint_or(key(suffix), fallback));
    return checked(suffix, value, least, most);
  }
  /// One number per layer. Zero is a layer without the thing, which only a per-layer array can say.
  [[nodiscard]] Result<std::vector<std::uint64_t>> per_layer(std::string_view suffix, std::uint64_t layers,
                                                             std::uint64_t most) const {
    const std::string name = key(suffix);
    MLXN_TRY(auto values, file.get_uints_per_layer(name, layers));
    const GgufValue* value = file.find(name);
    const std::uint64_t least = value != nullptr && value->is_array() ? 0 : 1;
    for (const std::uint64_t v : values) MLXN_CHECK(checked(suffix, v, least, most));
    return values;
  }
  [[nodiscard]] Result<double> positive(std::string_view suffix, double value) const {
    if (std::isfinite(value) && value > 0) return value;
    return gguf::corrupt("V15", "key '{}' is {}, wanted a finite number above 0", key(suffix), value);
  }
};

std::uint64_t first_nonzero(const std::vector<std::uint64_t>& values) noexcept {
  for (const std::uint64_t v : values) {
    if (v != 0) return v;
  }
  return 0;
}

Result<GgufArchitecture> read(const GgufFile& file) {
  GgufArchitecture out;
  MLXN_TRY(const std::string_view name, file.get_string("general.architecture"));
  if (name.empty() || name.size() > kMaxName || !gguf::is_printable_ascii(name)) {
    return gguf::corrupt("V15", "key 'general.architecture' is {}, wanted 1 to {} of printable ASCII", excerpt(name), kMaxName);
  }
  out.name = name;
  const Keys keys{file, out.name};
  MLXN_TRY(out.block_count, keys.size("block_count", 1, kMaxBlocks));
  MLXN_TRY(out.context_length, keys.size("context_length", 1, kMaxContext));
  MLXN_TRY(out.embedding_length, keys.size("embedding_length", 1, kMaxLength));
  const std::uint64_t layers = out.block_count;

  out.feed_forward_length.assign(layers, 0);
  if (file.find(keys.key("feed_forward_length")) != nullptr) {
    MLXN_TRY(out.feed_forward_length, keys.per_layer("feed_forward_length", layers, kMaxHidden));
  }
  MLXN_TRY(out.head_count, keys.per_layer("attention.head_count", layers, kMaxHeads));
  out.head_count_kv = out.head_count;
  if (file.find(keys.key("attention.head_count_kv")) != nullptr) {
    MLXN_TRY(out.head_count_kv, keys.per_layer("attention.head_count_kv", layers, kMaxHeads));
  }
  for (std::uint64_t i = 0; i < layers; ++i) {
    const std::uint64_t heads = out.head_count[i], kv_heads = out.head_count_kv[i];
    if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0) {
      return gguf::corrupt("V15", "layer {} has {} query heads for {} key heads, wanted a multiple", i, heads,
                           kv_heads);
    }
  }

  const std::uint64_t heads = first_nonzero(out.head_count);
  std::uint64_t head_dim = 0;
  if (heads != 0 && out.embedding_length % heads == 0) head_dim = out.embedding_length / heads;
  MLXN_TRY(out.key_length, keys.size_or("attention.key_length", head_dim, 1, kMaxLength));
  MLXN_TRY(out.value_length, keys.size_or("attention.value_length", head_dim, 1, kMaxLength));
  MLXN_TRY(out.rope_dimension_count, keys.size_or("rope.dimension_count", out.key_length, 0, out.key_length));
  MLXN_TRY(const double epsilon, file.get_float(keys.key("attention.layer_norm_rms_epsilon")));
  MLXN_TRY(out.rms_epsilon, keys.positive("attention.layer_norm_rms_epsilon", epsilon));
  MLXN_TRY(const double base, file.get_float_or(keys.key("rope.freq_base"), out.rope_freq_base));
  MLXN_TRY(out.rope_freq_base, keys.positive("rope.freq_base", base));

  MLXN_TRY(out.expert_count, keys.size_or("expert_count", 0, 0, kMaxExperts));
  MLXN_TRY(out.expert_used_count, keys.size_or("expert_used_count", 0, 0, out.expert_count));
  if ((out.expert_count == 0) != (out.expert_used_count == 0)) {
    return gguf::corrupt("V15", "{} of {} experts are used, wanted both or neither", out.expert_used_count,
                         out.expert_count);
  }

  std::uint64_t tokens = 0;
  if (const GgufValue* list = file.find("tokenizer.ggml.tokens"); list != nullptr) tokens = list->count();
  MLXN_TRY(out.vocab_size, keys.size_or("vocab_size", tokens, 0, kMaxVocabulary));
  return out;
}

}  // namespace

Result<GgufArchitecture> gguf_architecture(const GgufFile& file) noexcept {
  return detail::guarded([&]() -> Result<GgufArchitecture> {
    auto architecture = read(file);
    if (!architecture) return named_error(file, architecture.error());
    return architecture;
  });
}

}  // namespace mlxn
