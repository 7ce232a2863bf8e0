// Every family against llama.cpp on small models that exercise what the family has: windows, soft caps, scaled rotations,
// biases, norms, fused products, tied outputs.

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/models/tiny.h"
#include "tests/support/devices.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::must;
using test::nmse;
using test::TinyModel;

enum class Feed { one_by_one, one_pass, chunks };

Model load(const std::vector<std::byte>& bytes, const Device& device, PrepareMode mode = PrepareMode::on) {
  LoadOptions options;
  options.prepare = mode;
  return must(Model::load(must(GgufFile::parse(bytes)), device, options));
}

/// The logits after every token, [tokens][vocab].
std::vector<float> logits_of(const Model& model, const std::vector<TokenId>& tokens, std::int64_t context, Numerics numerics,
                             Feed feed) {
  SessionOptions options;
  options.context = context;
  options.kv_type = DType::f32;
  options.numerics = numerics;
  if (feed == Feed::chunks) options.batch = 7;
  Session session = must(Session::create(model, options));
  std::vector<float> all;
  if (feed == Feed::one_by_one) {
    for (const TokenId token : tokens) {
      const Tensor logits = must(session.append({&token, 1}));
      const auto mapped = must(logits.read<float>());
      all.insert(all.end(), mapped.begin(), mapped.end());
    }
    return all;
  }
  const Tensor logits = must(model.device().allocate(DType::f32, {static_cast<std::int64_t>(tokens.size()), model.info().vocab}));
  must(session.append_with_logits(tokens, logits));
  const auto mapped = must(logits.read<float>());
  all.assign(mapped.begin(), mapped.end());
  return all;
}

class Family : public testing::TestWithParam<const char*> {};

TEST_P(Family, ExactLogitsAreThoseOfLlamaCpp) {
  const Device device = must(Device::open("cpu"));
  const TinyModel tiny = test::load_tiny(GetParam());
  std::uint32_t crc = 0;
  const std::vector<std::byte> bytes = test::gguf_of(tiny, DType::f32, &crc);
  ASSERT_EQ(crc, tiny.crc) << "these are not the weights that llama.cpp saw";
  for (const PrepareMode mode : {PrepareMode::on, PrepareMode::off}) {
    const Model model = load(bytes, device, mode);
    for (const TinyModel::Run& run : tiny.runs) {
      SCOPED_TRACE("prepared " + std::to_string(mode == PrepareMode::on) + ", context " + std::to_string(run.context));
      const std::vector<float> decoded = logits_of(model, tiny.tokens, run.context, Numerics::exact, Feed::one_by_one);
      const double error = nmse(decoded, run.logits);
      EXPECT_LE(error, 1e-8);
      std::printf("%s context %lld prepared %d: NMSE %.1e", GetParam(), static_cast<long long>(run.context),
                  mode == PrepareMode::on, error);
      if (!run.float64.empty()) {
        EXPECT_LE(nmse(decoded, run.float64), 1e-10);
        std::printf(", float64 %.1e", nmse(decoded, run.float64));
      }
      std::printf("\n");
      for (const Feed feed : {Feed::one_pass, Feed::chunks}) {
        const std::vector<float> prefilled = logits_of(model, tiny.tokens, run.context, Numerics::exact, feed);
        EXPECT_LE(nmse(prefilled, run.logits), 1e-8);
        EXPECT_LE(nmse(prefilled, decoded), 1e-10);
      }
    }
  }
}

TEST_P(Family, QuantisedActivationsStayNearTheExactOnes) {
  const Device device = must(Device::open("cpu"));
  const TinyModel tiny = test::load_tiny(GetParam());
  for (const DType type : {DType::q8_0, DType::q4_0}) {
    const std::vector<std::byte> bytes = test::gguf_of(tiny, type);
    const Model prepared = load(bytes, device), raw = load(bytes, device, PrepareMode::off);
    const std::int64_t context = tiny.runs[0].context;
    const std::vector<float> exact = logits_of(prepared, tiny.tokens, context, Numerics::exact, Feed::one_by_one);
    EXPECT_LE(nmse(logits_of(raw, tiny.tokens, context, Numerics::exact, Feed::one_pass), exact), 1e-10);
    for (const Model* model : {&prepared, &raw}) {
      for (const Feed feed : {Feed::one_by_one, Feed::one_pass}) {
        const double error = nmse(logits_of(*model, tiny.tokens, context, Numerics::int8act, feed), exact);
        EXPECT_LE(error, 5e-3);  // random weights of few columns amplify more than trained ones
        EXPECT_GT(error, 1e-9) << "the activations were not quantised";
        std::printf("%s %s int8act: NMSE %.1e\n", GetParam(), std::string(to_string(type)).c_str(), error);
      }
    }
  }
}

TEST_P(Family, DecodingReplaysOneGraph) {
  const Device device = must(Device::open("cpu"));
  const TinyModel tiny = test::load_tiny(GetParam());
  const std::vector<std::byte> bytes = test::gguf_of(tiny);
  const Model model = load(bytes, device);
  Session session = must(Session::create(model));
  must(session.append(tiny.tokens));
  TokenId token = 1;
  must(session.append({&token, 1}));
  const Counters before = device.counters();
  for (int i = 0; i < 5; ++i) must(session.append({&token, 1}));
  const Counters after = device.counters();
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.dispatches_encoded, before.dispatches_encoded);
  EXPECT_EQ(after.syncs, before.syncs + 5);
}

constexpr const char* kModels[] = {"llama", "llama_linear_tied", "mistral_window", "qwen2",         "qwen2_yarn_tied", "qwen3",
                                   "qwen3_tied", "gemma2",       "gemma3",         "gemma3_capped", "phi3",            "phi3_window_tied"};
INSTANTIATE_TEST_SUITE_P(Models, Family, testing::ValuesIn(kModels));

/// Metadata that says something else must change the logits: no key is read in vain.
TEST(FamilyKeys, EachOneMatters) {
  const Device device = must(Device::open("cpu"));
  struct Case {
    const char *model, *key, *type;
    nlohmann::json value;
  };
  const Case cases[] = {
      {"llama", "rope.freq_base", "f32", 10000.0},
      {"llama_linear_tied", "rope.scaling.factor", "f32", 2.0},
      {"llama_linear_tied", "rope.scaling.type", "string", "none"},
      {"llama_linear_tied", "rope.scaling.attn_factor", "f32", 1.5},
      {"llama_linear_tied", "attention.layer_norm_rms_epsilon", "f32", 0.5},
      {"mistral_window", "attention.sliding_window", "u32", 13},
      {"mistral_window", "attention.sliding_window_pattern", "bools", {true, false}},
      {"qwen2_yarn_tied", "rope.scaling.original_context_length", "u32", 2048},
      {"qwen2_yarn_tied", "rope.scaling.yarn_beta_fast", "f32", 4.0},
      {"qwen2_yarn_tied", "rope.scaling.yarn_beta_slow", "f32", 8.0},
      {"qwen2_yarn_tied", "rope.scaling.yarn_ext_factor", "f32", 0.5},
      {"qwen2_yarn_tied", "rope.scaling.yarn_log_multiplier", "f32", 0.5},
      {"gemma2", "attention.sliding_window_pattern", "u32", 3},
      {"gemma2", "attn_logit_softcapping", "f32", 4.0},
      {"gemma2", "final_logit_softcapping", "f32", 7.0},
      {"gemma3", "final_logit_softcapping", "f32", 7.0},
      {"gemma3", "rope.freq_base", "f32", 10000.0},
      {"gemma3", "rope.freq_base_swa", "f32", 5000.0},
      {"gemma3", "rope.scaling.factor", "f32", 2.0},
      {"gemma3", "attention.sliding_window", "u32", 0},
      {"phi3", "rope.dimension_count", "u32", 12},  // the same: the control
      {"phi3", "rope.scaling.attn_factor", "f32", 1.0},
      {"phi3", "attention.sliding_window", "u32", 30},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.model) + " " + c.key);
    TinyModel tiny = test::load_tiny(c.model);
    const std::vector<std::byte> before = test::gguf_of(tiny), after = test::gguf_of(tiny.set(c.key, c.type, c.value));
    const std::int64_t context = tiny.runs[0].context;
    const double change = nmse(logits_of(load(after, device), tiny.tokens, context, Numerics::exact, Feed::one_pass),
                               logits_of(load(before, device), tiny.tokens, context, Numerics::exact, Feed::one_pass));
    if (std::string(c.key) == "rope.dimension_count") {
      EXPECT_EQ(change, 0);
    } else {
      EXPECT_GT(change, 1e-7);
    }
  }
}

TEST(FamilyKeys, FirstPhi3FilesHaveTheWindowOfTheirModels) {
  if (test::wants_small_sizes("cpu")) GTEST_SKIP() << "2060 tokens of 32 layers, for a number in the file alone";
  const Device device = must(Device::open("cpu"));
  TinyModel tiny = test::load_tiny("phi3");
  tiny.set("context_length", "u32", 4096).set("block_count", "u32", 32);
  for (std::size_t t = 0, count = tiny.tensors.size(); t < count; ++t) {
    const std::string name = tiny.tensors[t][0];
    if (!name.starts_with("blk.0.")) continue;
    for (int layer = 3; layer < 32; ++layer) {
      tiny.tensors.push_back(tiny.tensors[t]);
      tiny.tensors.back()[0] = "blk." + std::to_string(layer) + name.substr(5);
    }
  }
  std::vector<TokenId> tokens;
  for (TokenId i = 0; i < 2060; ++i) tokens.push_back(tiny.tokens[static_cast<std::size_t>(i * i % 61)]);
  const auto last_logits = [&](const TinyModel& from) {
    const std::vector<std::byte> bytes = test::gguf_of(from);
    SessionOptions options;
    options.numerics = Numerics::exact;
    const Model model = load(bytes, device);
    Session session = must(Session::create(model, options));
    const Tensor logits = must(session.append(tokens));
    const auto mapped = must(logits.read<float>());
    return std::vector<float>(mapped.begin(), mapped.end());
  };
  const std::vector<float> none = last_logits(tiny);
  const std::vector<float> named = last_logits(TinyModel(tiny).set("attention.sliding_window", "u32", 2047));
  for (auto it = tiny.metadata.begin(); it != tiny.metadata.end(); ++it) {
    if ((*it)[0] == "phi3.attention.sliding_window") {
      tiny.metadata.erase(it);
      break;
    }
  }
  EXPECT_EQ(last_logits(tiny), named);
  EXPECT_NE(named, none);
}

}  // namespace
}  // namespace mlxn
