#include "models/synth/recipes.h"

#include <array>

#include "base/error.h"
#include "base/join.h"

namespace mlxn {
namespace {

struct Architecture {
  std::string_view name;
  SynthVocabulary vocabulary;
  double rms_epsilon, rope_base;
  bool tied;
  models::SynthTraits traits;
};
constexpr Architecture kArchitectures[] = {
    {"llama", SynthVocabulary::llama, 1e-5, 10000, false, {}},
    {"qwen2", SynthVocabulary::qwen2, 1e-6, 1e6, false, {.qkv_bias = true}},
    {"qwen3", SynthVocabulary::qwen2, 1e-6, 1e6, false, {.qk_norm = true}},
    {"gemma2", SynthVocabulary::gemma, 1e-6, 10000, true, {.post_norms = true}},
    {"gemma3", SynthVocabulary::gemma, 1e-6, 1e6, true, {.qk_norm = true, .post_norms = true}},
    {"phi3", SynthVocabulary::phi3, 1e-5, 10000, false, {.fused = true}},
};

struct Like {
  std::string_view name, architecture;
  std::uint64_t layers, embedding, heads, kv_heads, head_dim, feed_forward, vocab, context;
  void (*rest)(SynthModel&);  // what else differs from the architecture's own; may be null
};
void llama3(SynthModel& m) {
  m.vocabulary = SynthVocabulary::llama3;
  m.rope_base = 500000;
}
// From the models' published configurations. Of Gemma 3's vocabulary, GGUF files leave out 64 rows that no text becomes.
constexpr Like kLikes[] = {
    {"tiny", "llama", 2, 256, 4, 2, 64, 512, 1024, 512, nullptr},
    {"llama3-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 8192, &llama3},
    {"llama3-70b", "llama", 80, 8192, 64, 8, 128, 28672, 128256, 8192, &llama3},
    {"llama3.2-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072,
     [](SynthModel& m) {
       llama3(m);
       m.tied = true;
       m.rope_llama3 = 32;
     }},
    {"qwen2.5-7b", "qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, nullptr},
    {"qwen3-8b", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 40960, nullptr},
    {"gemma2-2b", "gemma2", 26, 2304, 8, 4, 256, 9216, 256000, 8192,
     [](SynthModel& m) {
       m.window = 4096;
       m.attn_softcap = 50;
       m.final_softcap = 30;
     }},
    {"gemma3-4b", "gemma3", 34, 2560, 8, 4, 256, 10240, 262144, 131072,
     [](SynthModel& m) {
       m.window = 1024;
       m.rope_linear = 8;
     }},
    {"phi3-mini", "phi3", 32, 3072, 32, 32, 96, 8192, 32064, 4096, [](SynthModel& m) { m.window = 2047; }},
};

constexpr auto kLikeNames = [] {
  std::array<std::string_view, std::size(kLikes)> names{};
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kLikes[i].name;
  return names;
}();

const Architecture* find_architecture(std::string_view name) noexcept {
  for (const Architecture& a : kArchitectures) {
    if (a.name == name) return &a;
  }
  return nullptr;
}

Error unknown_architecture(std::string_view name) {
  std::string known;
  for (const Architecture& a : kArchitectures) known += (known.empty() ? "" : ", ") + std::string(a.name);
  return make_error(ErrorCode::invalid_argument, "synth: the architecture '{}' is not known, wanted one of: {}", name, known);
}

}  // namespace

std::string_view to_string(SynthVocabulary vocabulary) noexcept {
  switch (vocabulary) {
    case SynthVocabulary::llama: return "llama";
    case SynthVocabulary::gemma: return "gemma";
    case SynthVocabulary::phi3: return "phi3";
    case SynthVocabulary::llama3: return "llama3";
    case SynthVocabulary::qwen2: return "qwen2";
  }
  return "unknown";
}

Result<SynthModel> synth_architecture(std::string_view architecture) noexcept {
  return detail::guarded([&]() -> Result<SynthModel> {
    const Architecture* a = find_architecture(architecture);
    if (a == nullptr) return unknown_architecture(architecture);
    SynthModel model;
    model.architecture = a->name;
    model.vocabulary = a->vocabulary;
    model.rms_epsilon = a->rms_epsilon;
    model.rope_base = a->rope_base;
    model.tied = a->tied;
    return model;
  });
}

Result<SynthModel> synth_model(std::string_view like) noexcept {
  return detail::guarded([&]() -> Result<SynthModel> {
    for (const Like& l : kLikes) {
      if (l.name != like) continue;
      MLXN_TRY(SynthModel model, synth_architecture(l.architecture));
      model.name = l.name;
      model.layers = l.layers;
      model.embedding = l.embedding;
      model.heads = l.heads;
      model.kv_heads = l.kv_heads;
      model.head_dim = l.head_dim;
      model.feed_forward = l.feed_forward;
      model.vocab = l.vocab;
      model.context = l.context;
      if (l.rest != nullptr) l.rest(model);
      return model;
    }
    return make_error(ErrorCode::invalid_argument, "synth: the model '{}' is not known, wanted one of: {}", like,
                      joined(kLikeNames));
  });
}

std::span<const std::string_view> synth_models() noexcept { return kLikeNames; }

namespace models {

Result<SynthTraits> synth_traits(std::string_view architecture) {
  const Architecture* a = find_architecture(architecture);
  if (a == nullptr) return unknown_architecture(architecture);
  return a->traits;
}

Result<std::vector<SynthTensor>> synth_tensors(const SynthModel& model) {
  MLXN_TRY(const SynthTraits traits, synth_traits(model.architecture));
  const std::uint64_t dim = model.embedding, ff = model.feed_forward;
  const std::uint64_t q_dim = model.heads * model.head_dim, kv_dim = model.kv_heads * model.head_dim;
  std::vector<SynthTensor> out;
  const auto matrix = [&](std::string name, std::uint64_t k, std::uint64_t n) {
    out.push_back({std::move(name) + ".weight", {k, n}, SynthFill::matrix});
  };
  const auto norm = [&](std::string name, std::uint64_t n) { out.push_back({std::move(name) + ".weight", {n}, SynthFill::norm}); };
  const auto projection = [&](const std::string& name, std::uint64_t n) {
    matrix(name, dim, n);
    if (traits.qkv_bias) out.push_back({name + ".bias", {n}, SynthFill::bias});
  };

  matrix("token_embd", dim, model.vocab);
  if (model.rope_llama3 != 0) out.push_back({"rope_freqs.weight", {model.head_dim / 2}, SynthFill::rope_factors});
  for (std::uint64_t i = 0; i < model.layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    norm(block + "attn_norm", dim);
    if (traits.fused) {
      matrix(block + "attn_qkv", dim, q_dim + 2 * kv_dim);
    } else {
      projection(block + "attn_q", q_dim);
      projection(block + "attn_k", kv_dim);
      projection(block + "attn_v", kv_dim);
    }
    if (traits.qk_norm) {
      norm(block + "attn_q_norm", model.head_dim);
      norm(block + "attn_k_norm", model.head_dim);
    }
    matrix(block + "attn_output", q_dim, dim);
    if (traits.post_norms) norm(block + "post_attention_norm", dim);
    norm(block + "ffn_norm", dim);
    if (traits.fused) {
      matrix(block + "ffn_up", dim, 2 * ff);
    } else {
      matrix(block + "ffn_gate", dim, ff);
      matrix(block + "ffn_up", dim, ff);
    }
    matrix(block + "ffn_down", ff, dim);
    if (traits.post_norms) norm(block + "post_ffw_norm", dim);
  }
  norm("output_norm", dim);
  if (!model.tied) matrix("output", dim, model.vocab);
  return out;
}

namespace {

/// general.file_type of a file whose matrices are all of one type; the K-quants' plain mixes are those called small.
std::uint32_t file_type(DType type) noexcept {
  switch (type) {
    case DType::f32: return 0;
    case DType::f16: return 1;
    case DType::q4_0: return 2;
    case DType::q4_1: return 3;
    case DType::q8_0: return 7;
    case DType::q5_0: return 8;
    case DType::q5_1: return 9;
    case DType::q2_K: return 10;
    case DType::q3_K: return 11;
    case DType::q4_K: return 14;
    case DType::q5_K: return 16;
    case DType::q6_K: return 18;
    case DType::iq4_nl: return 25;
    case DType::iq4_xs: return 30;
    case DType::bf16: return 32;
    default: return 38;  // mxfp4
  }
}

}  // namespace

Result<void> add_architecture(GgufWriter& writer, const SynthModel& model, DType type) {
  const auto key = [&](std::string_view suffix) { return fmt::format("{}.{}", model.architecture, suffix); };
  const auto size = [&](std::string_view suffix, std::uint64_t value) {
    return writer.add<std::uint32_t>(key(suffix), static_cast<std::uint32_t>(value));
  };
  const auto number = [&](std::string_view suffix, double value) { return writer.add<float>(key(suffix), static_cast<float>(value)); };
  MLXN_CHECK(writer.add("general.architecture", model.architecture));
  MLXN_CHECK(writer.add("general.type", "model"));
  MLXN_CHECK(writer.add("general.name", fmt::format("{} with random weights", model.name.empty() ? model.architecture : model.name)));
  MLXN_CHECK(writer.add<std::uint32_t>("general.file_type", file_type(type)));
  MLXN_CHECK(writer.add<std::uint32_t>("general.quantization_version", 2));
  MLXN_CHECK(size("block_count", model.layers));
  MLXN_CHECK(size("context_length", model.context));
  MLXN_CHECK(size("embedding_length", model.embedding));
  MLXN_CHECK(size("feed_forward_length", model.feed_forward));
  MLXN_CHECK(size("attention.head_count", model.heads));
  MLXN_CHECK(size("attention.head_count_kv", model.kv_heads));
  MLXN_CHECK(size("attention.key_length", model.head_dim));
  MLXN_CHECK(size("attention.value_length", model.head_dim));
  MLXN_CHECK(number("attention.layer_norm_rms_epsilon", model.rms_epsilon));
  if (model.window != 0) MLXN_CHECK(size("attention.sliding_window", model.window));
  if (model.attn_softcap != 0) MLXN_CHECK(number("attn_logit_softcapping", model.attn_softcap));
  if (model.final_softcap != 0) MLXN_CHECK(number("final_logit_softcapping", model.final_softcap));
  MLXN_CHECK(size("rope.dimension_count", model.head_dim));
  MLXN_CHECK(number("rope.freq_base", model.rope_base));
  if (model.rope_linear != 0) {
    MLXN_CHECK(writer.add(key("rope.scaling.type"), "linear"));
    MLXN_CHECK(number("rope.scaling.factor", model.rope_linear));
  }
  return size("vocab_size", model.vocab);
}

}  // namespace models
}  // namespace mlxn
