// Models with random weights: their files load, decode to sane numbers, speak, and are the same for the same seed.
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <stdexcept>

#include "gtest/gtest.h"
#include "mlxn/chat.h"
#include "mlxn/model.h"
#include "mlxn/quant.h"
#include "mlxn/synth.h"
#include "models/synth/recipes.h"
#include "tests/formats/temp_folder.h"
#include "tests/support/devices.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;
using testing::TempFolder;

constexpr DType kTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1,   DType::q5_0,   DType::q5_1, DType::q8_0,
                            DType::q2_K, DType::q3_K, DType::q4_K, DType::q5_K, DType::q6_K,   DType::iq4_nl, DType::iq4_xs, DType::mxfp4};

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Moments {
  double mean = 0, rms = 0;
};
Moments moments(const GgufFile& file, std::string_view name) {
  const GgufTensor* t = file.find_tensor(name);
  EXPECT_NE(t, nullptr) << name;
  if (t == nullptr) return {};
  std::vector<float> values(t->elems);
  must(dequantize(*t->dtype, must(file.data(*t)), values));
  Moments m;
  for (const float v : values) {
    m.mean += static_cast<double>(v) / static_cast<double>(values.size());
    m.rms += static_cast<double>(v) * static_cast<double>(v) / static_cast<double>(values.size());
  }
  m.rms = std::sqrt(m.rms);
  return m;
}

TEST(Synth, WeightsOfEveryTypeHaveTheirVariance) {
  const TempFolder folder;
  for (const DType type : kTypes) {
    SCOPED_TRACE(to_string(type));
    SynthOptions options;
    options.type = type;
    must(synthesize(folder / "x.gguf", must(synth_model("tiny")), options));
    const GgufFile file = must(GgufFile::open(folder / "x.gguf"));
    for (const auto& [name, k] : {std::pair{"token_embd.weight", 256}, {"blk.1.ffn_up.weight", 256}, {"blk.0.ffn_down.weight", 512}}) {
      EXPECT_EQ(file.find_tensor(name)->dtype, type) << name;
      const Moments m = moments(file, name);
      EXPECT_NEAR(m.rms * std::sqrt(k), 1, 0.1) << name;
      EXPECT_LT(std::abs(m.mean), 0.05 * m.rms) << name;
      must(validate_blocks(type, must(file.data(*file.find_tensor(name)))));
    }
    EXPECT_EQ(file.find_tensor("blk.0.ffn_norm.weight")->dtype, DType::f32);
    EXPECT_NEAR(moments(file, "blk.0.ffn_norm.weight").mean, 1, 0.02);
  }
}

TEST(Synth, RowsOfAllKnownModelsKeepTheirVariance) {
  // The long rows of large models have the smallest scales, near the end of what an f16 can hold.
  const TempFolder folder;
  SynthModel model = must(synth_model("tiny"));
  model.feed_forward = 28672;
  for (const DType type : kTypes) {
    if (test::wants_small_sizes("cpu") && type != DType::q4_K) continue;  // the one above has every type
    SynthOptions options;
    options.type = type;
    must(synthesize(folder / "x.gguf", model, options));
    EXPECT_NEAR(moments(must(GgufFile::open(folder / "x.gguf")), "blk.0.ffn_down.weight").rms * std::sqrt(28672), 1, 0.1) << to_string(type);
  }
}

TEST(Synth, TheSameSeedGivesTheSameBytes) {
  const TempFolder folder;
  const SynthModel model = must(synth_model("tiny"));
  SynthOptions options;
  const auto bytes = [&](int threads, std::uint64_t seed) {
    options.threads = threads;
    options.seed = seed;
    must(synthesize(folder / "x.gguf", model, options));
    return text_of(folder / "x.gguf");
  };
  const std::string one = bytes(1, 5);
  EXPECT_EQ(one, bytes(1, 5));
  EXPECT_EQ(one, bytes(7, 5));
  EXPECT_NE(one, bytes(1, 6));
}

TEST(Synth, ReportsWhatItWrote) {
  const TempFolder folder;
  SynthOptions options;
  options.type = DType::q8_0;
  std::uint64_t last = 0;
  options.progress = [&](std::uint64_t done, std::uint64_t all) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, all);
    last = done;
    return true;
  };
  const SynthReport report = must(synthesize(folder / "x.gguf", must(synth_model("tiny")), options));
  EXPECT_EQ(last, report.tensor_bytes);
  EXPECT_EQ(report.paths, std::vector<std::string>{(folder / "x.gguf").string()});
  EXPECT_EQ(report.file_bytes, std::filesystem::file_size(folder / "x.gguf"));
  const GgufFile file = must(GgufFile::open(folder / "x.gguf"));
  std::uint64_t elems = 0, bytes = 0;
  for (const GgufTensor& t : file.tensors()) {
    elems += t.elems;
    bytes += t.bytes;
  }
  EXPECT_EQ(report.parameters, elems);
  EXPECT_EQ(report.tensor_bytes, bytes);
}

TEST(Synth, EveryArchitectureHasItsTensorsAndKeysAndRuns) {
  const TempFolder folder;
  const Device device = must(Device::open("cpu"));
  const std::map<std::string, std::vector<std::string>> own = {
      {"llama", {"output.weight", "blk.1.ffn_gate.weight"}},
      {"qwen2", {"blk.0.attn_q.bias", "blk.1.attn_v.bias"}},
      {"qwen3", {"blk.0.attn_q_norm.weight", "blk.1.attn_k_norm.weight"}},
      {"gemma2", {"blk.0.post_attention_norm.weight", "blk.1.post_ffw_norm.weight"}},
      {"gemma3", {"blk.0.post_attention_norm.weight", "blk.1.attn_q_norm.weight"}},
      {"phi3", {"blk.0.attn_qkv.weight", "blk.1.ffn_up.weight", "output.weight"}}};
  for (const auto& [architecture, names] : own) {
    SCOPED_TRACE(architecture);
    SynthModel model = must(synth_architecture(architecture));
    const SynthModel tiny = must(synth_model("tiny"));
    model.layers = tiny.layers;
    model.embedding = tiny.embedding;
    model.feed_forward = tiny.feed_forward;
    model.vocab = tiny.vocab;
    model.heads = tiny.heads;
    model.context = tiny.context;
    must(synthesize(folder / "x.gguf", model));
    const GgufFile file = must(GgufFile::open(folder / "x.gguf"));
    for (const std::string& name : names) EXPECT_NE(file.find_tensor(name), nullptr) << name;
    EXPECT_EQ(file.find_tensor("output.weight") == nullptr, model.tied);
    const GgufArchitecture read = must(gguf_architecture(file));
    EXPECT_EQ(read.name, architecture);
    EXPECT_EQ(read.head_count_kv[0], 4u);  // as many as heads, where nothing is said
    EXPECT_EQ(read.key_length, 64u);
    EXPECT_EQ(read.vocab_size, file.get_strings("tokenizer.ggml.tokens").value().size());
    EXPECT_EQ(read.rope_freq_base, model.rope_base);
    const Model runs = must(Model::load(file, device));
    Session session = must(Session::create(runs));
    const std::vector<TokenId> tokens = {1, 300, 400, 500, 600};
    const Tensor logits = must(session.append(tokens));
    for (const float v : must(logits.read<float>())) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST(Synth, KnownModelsHaveTheirSizes) {
  // As published. Llama 3.2's table of frequencies, which is in its GGUF files, is computed from the configuration elsewhere.
  const std::map<std::string_view, std::uint64_t> published = {
      {"llama3-8b", 8'030'261'248},  {"llama3-70b", 70'553'706'496}, {"llama3.2-1b", 1'235'814'400},
      {"qwen2.5-7b", 7'615'616'512}, {"qwen3-8b", 8'190'735'360},    {"gemma2-2b", 2'614'341'888},
      {"gemma3-4b", 3'880'099'328},  {"phi3-mini", 3'821'079'552}};
  EXPECT_EQ(published.size() + 1, synth_models().size());  // "tiny" is nobody's
  for (const std::string_view name : synth_models()) {
    const SynthModel m = must(synth_model(name));
    std::uint64_t parameters = 0;
    for (const models::SynthTensor& t : must(models::synth_tensors(m))) {
      if (t.fill == models::SynthFill::rope_factors) continue;
      std::uint64_t elems = 1;
      for (const std::uint64_t n : t.ne) elems *= n;
      parameters += elems;
    }
    if (name != "tiny") {
      EXPECT_EQ(parameters, published.at(name)) << name;
    }
    EXPECT_EQ(m.name, name);
    EXPECT_EQ(m.heads % m.kv_heads, 0u) << name;
    EXPECT_EQ(m.embedding % 256, 0u) << name;  // every K-quant fits
    EXPECT_EQ(m.feed_forward % 256, 0u) << name;
  }
}

TEST(Synth, LlamaFrequenciesAreThoseOfThePaper) {
  const TempFolder folder;
  SynthModel model = must(synth_model("tiny"));
  model.rope_base = 500000;
  model.rope_llama3 = 32;
  must(synthesize(folder / "x.gguf", model));
  const GgufFile file = must(GgufFile::open(folder / "x.gguf"));
  const auto bytes = must(file.data(**file.expect_tensor("rope_freqs.weight", {32})));
  std::vector<float> factors(32);
  must(dequantize(DType::f32, bytes, factors));
  EXPECT_EQ(factors.front(), 1);
  EXPECT_EQ(factors.back(), 32);
  EXPECT_TRUE(std::is_sorted(factors.begin(), factors.end()));
  // Pair 15 turns once in 2 pi 500000^(15/32) = 2949 positions: t = (8192 / 2949 - 1) / 3 = 0.5926.
  EXPECT_NEAR(factors[15], 1 / ((1 - 0.5926) / 32 + 0.5926), 1e-3);
}

TEST(Synth, ItsTextEncodesAndDecodes) {
  const TempFolder folder;
  using enum SynthVocabulary;
  for (const auto& [vocabulary, chat_family] : {std::pair{llama, "llama2"}, {gemma, "gemma"}, {phi3, "phi3"}, {llama3, "llama3"}, {qwen2, "chatml"}}) {
    SCOPED_TRACE(to_string(vocabulary));
    SynthModel model = must(synth_model("tiny"));
    model.vocabulary = vocabulary;
    must(synthesize(folder / "x.gguf", model));
    const GgufFile file = must(GgufFile::open(folder / "x.gguf"));
    const Tokenizer tokenizer = must(Tokenizer::from_gguf(file));
    EXPECT_EQ(tokenizer.vocab_size(), model.vocab);
    EXPECT_TRUE(tokenizer.notes().empty());
    ASSERT_TRUE(tokenizer.eos());
    EXPECT_TRUE(tokenizer.is_end_of_generation(*tokenizer.eos()));
    const std::string text = "The people said:\n\t\"there is water\" \u00fc \u4e2d 12";
    const auto ids = must(tokenizer.encode(text));
    EXPECT_EQ(must(tokenizer.decode(ids)), text);
    // Words are words: far fewer tokens than letters.
    EXPECT_LE(must(tokenizer.encode("the people and the water", {.add_bos = false, .add_eos = false})).size(), 8u);
    const ChatTemplate chat = must(ChatTemplate::from_gguf(file, tokenizer));
    EXPECT_EQ(chat.name(), chat_family);
    EXPECT_TRUE(chat.notes().empty());
  }
}

TEST(Synth, TheModelRuns) {
  const TempFolder folder;
  const Device device = must(Device::open("cpu"));
  for (const DType type : kTypes) {
    SCOPED_TRACE(to_string(type));
    SynthOptions options;
    options.type = type;
    must(synthesize(folder / "x.gguf", must(synth_model("tiny")), options));
    const Model model = must(Model::load(must(GgufFile::open(folder / "x.gguf")), device));
    Session session = must(Session::create(model));
    const std::vector<TokenId> tokens = {1, 300, 400, 500, 600};
    const Tensor logits = must(session.append(tokens));
    const auto values = must(logits.read<float>());
    double power = 0;
    for (const float v : values) power += static_cast<double>(v) * static_cast<double>(v) / static_cast<double>(values.size());
    EXPECT_NEAR(std::sqrt(power), 1, 0.3);  // unit activations times weights of variance 1 / dim
  }
}

TEST(Synth, PartsAndSourcesAreTheSameModel) {
  const TempFolder folder;
  const SynthModel tiny = must(synth_model("tiny"));
  SynthOptions options;
  must(synthesize(folder / "whole.gguf", tiny, options));
  options.write.split_max_bytes = 200'000;
  const SynthReport report = must(synthesize(folder / "parts.gguf", tiny, options));
  EXPECT_GT(report.paths.size(), 3u);
  std::uint64_t bytes = 0;
  for (const std::string& path : report.paths) {
    EXPECT_LE(std::filesystem::file_size(path), 200'000u);
    bytes += std::filesystem::file_size(path);
  }
  EXPECT_EQ(report.file_bytes, bytes);

  const std::string whole = text_of(folder / "whole.gguf");
  GgufSource source;
  source.label = "a string";
  source.bytes = whole.size();
  source.read = [&](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    std::memcpy(out.data(), whole.data() + offset, out.size());
    return {};
  };
  const GgufFile files[] = {must(GgufFile::open(folder / "whole.gguf")), must(GgufFile::open(report.paths[0])), must(GgufFile::open(source))};
  const Device device = must(Device::open("cpu"));
  const std::vector<TokenId> tokens = {1, 300, 400, 500, 600};
  for (const PrepareMode mode : {PrepareMode::on, PrepareMode::off}) {
    std::vector<std::vector<float>> logits;
    for (const GgufFile& file : files) {
      LoadOptions load;
      load.prepare = mode;
      const Model model = must(Model::load(file, device, load));
      Session session = must(Session::create(model));
      const Tensor out = must(session.append(tokens));
      const auto values = must(out.read<float>());
      logits.emplace_back(values.begin(), values.end());
    }
    EXPECT_EQ(logits[0], logits[1]);
    EXPECT_EQ(logits[0], logits[2]);
  }
}

TEST(Synth, NumbersAtTheEndsOfTheirRangesLoad) {
  const TempFolder folder;
  const Device device = must(Device::open("cpu"));
  constexpr double least = std::numeric_limits<float>::min(), most = std::numeric_limits<float>::max();
  const struct {
    const char *architecture, *what;
    double SynthModel::*number;
    double least, most;
  } cases[] = {{"llama", "rms_epsilon", &SynthModel::rms_epsilon, least, most},
               {"llama", "rope_base", &SynthModel::rope_base, 1, most},
               {"llama", "rope_linear", &SynthModel::rope_linear, 1, 1e6},
               {"gemma3", "rope_linear", &SynthModel::rope_linear, 1, 1e6},
               {"llama", "rope_llama3", &SynthModel::rope_llama3, 1, 1e6},
               {"gemma2", "attn_softcap", &SynthModel::attn_softcap, least, 1e6},
               {"gemma2", "final_softcap", &SynthModel::final_softcap, least, 1e6},
               {"gemma3", "final_softcap", &SynthModel::final_softcap, least, 1e6}};
  for (const auto& c : cases) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.what);
    SynthModel model = must(synth_model("tiny"));
    model.architecture = c.architecture;
    for (const double value : {c.least, c.most}) {
      model.*c.number = value;
      must(synthesize(folder / "x.gguf", model));
      must(Model::load(must(GgufFile::open(folder / "x.gguf")), device));
    }
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const double value : {std::nextafter(c.least, 0), std::nextafter(c.most, HUGE_VAL), 1e-60, 1e300, -1.0, nan}) {
      model.*c.number = value;
      EXPECT_TRUE(fails_with(synthesize(folder / "y.gguf", model), ErrorCode::invalid_argument, {c.what})) << value;
    }
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"x.gguf"});
}

TEST(Synth, RefusesWhatMakesNoModel) {
  const TempFolder folder;
  const auto bad = ErrorCode::invalid_argument;
  const auto with = [&](const std::function<void(SynthModel&, SynthOptions&)>& change) {
    SynthModel model = must(synth_model("tiny"));
    SynthOptions options;
    change(model, options);
    return synthesize(folder / "x.gguf", model, options);
  };
  EXPECT_TRUE(fails_with(synth_model("llama9"), bad, {"llama9", "llama3-8b", "tiny"}));
  EXPECT_TRUE(fails_with(synth_architecture("mamba"), bad, {"mamba", "qwen3"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.architecture = "mamba"; }), bad, {"mamba"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.layers = 0; }), bad, {"layers is 0", "1 to 1024"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.embedding = 1 << 21; }), bad, {"embedding"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.kv_heads = 3; }), bad, {"4 heads", "3 kv_heads"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.head_dim = 63; }), bad, {"head_dim", "even"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) {
                           m.heads = 3;
                           m.kv_heads = 3;
                           m.head_dim = 0;
                         }),
                         bad, {"256 for 3 heads"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.vocabulary = static_cast<SynthVocabulary>(9); }), bad, {"vocabulary is 9"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.rope_base = 0; }), bad, {"rope_base"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.rope_linear = NAN; }), bad, {"rope_linear"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.vocab = 300; }), bad, {"300", "354"}));
  EXPECT_TRUE(fails_with(with([](auto&, auto& o) { o.threads = -1; }), bad, {"-1 threads"}));
  EXPECT_TRUE(fails_with(with([](auto&, auto& o) { o.type = DType::iq2_xs; }), ErrorCode::unsupported, {"iq2_xs"}));
  EXPECT_TRUE(fails_with(with([](auto&, auto& o) { o.type = static_cast<DType>(200); }), ErrorCode::bad_dtype, {"dtype 200 is none"}));
  EXPECT_TRUE(fails_with(with([](auto& m, auto&) { m.feed_forward = 320; }), ErrorCode::bad_shape, {"ffn_down", "320", "256", "q4_K"}));
  EXPECT_TRUE(fails_with(with([](auto&, auto& o) { o.progress = [](std::uint64_t, std::uint64_t) { return false; }; }), ErrorCode::cancelled,
                         {"stopped"}));
  EXPECT_TRUE(fails_with(with([](auto&, auto& o) {
                           o.progress = [](std::uint64_t, std::uint64_t) -> bool { throw std::runtime_error("no bar"); };
                         }),
                         bad, {"synth", "`progress` threw", "no bar"}));
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace mlxn
