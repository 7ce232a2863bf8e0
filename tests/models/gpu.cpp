// Whole models on every GPU that is there and on the emulator: the same logits as on the CPU, token by token and in one pass,
// and tokens drawn on the device.

#include <span>

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/models/tiny.h"
#include "tests/support/devices.h"
#include "tests/support/must.h"
#include "tests/support/source_dir.h"

namespace mlxn::test {
namespace {

std::vector<std::string> gpu_names() {
  std::vector<std::string> names = device_names();
  std::erase(names, "cpu");
  return names;
}

std::vector<float> values_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elems()));
  must(tensor.device().download(std::as_writable_bytes(std::span(values)), tensor));
  return values;
}

enum class Feed { one_by_one, one_pass, chunks };

/// The logits after every token, [tokens][vocab].
std::vector<float> logits_of(const Model& model, std::span<const TokenId> tokens, std::int64_t context, Feed feed) {
  SessionOptions options;
  options.context = context;
  options.kv_type = DType::f32;
  options.numerics = Numerics::exact;
  if (feed == Feed::chunks) options.batch = 7;
  Session session = must(Session::create(model, options));
  if (feed != Feed::one_by_one) {
    const Tensor logits = must(model.device().allocate(DType::f32, {static_cast<std::int64_t>(tokens.size()), model.info().vocab}));
    must(session.append_with_logits(tokens, logits));
    return values_of(logits);
  }
  std::vector<float> all;
  for (const TokenId token : tokens) {
    const std::vector<float> one = values_of(must(session.append({&token, 1})));
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

class GpuFamily : public testing::TestWithParam<std::tuple<std::string, const char*>> {};

TEST_P(GpuFamily, ExactLogitsAreThoseOfLlamaCpp) {
  const auto& [name, model_name] = GetParam();
  const Device device = device_named(name);
  const TinyModel tiny = load_tiny(model_name);
  const Model model = must(Model::load(must(GgufFile::parse(gguf_of(tiny))), device));
  for (const TinyModel::Run& run : tiny.runs) {
    SCOPED_TRACE("context " + std::to_string(run.context));
    for (const Feed feed : {Feed::one_pass, Feed::chunks, Feed::one_by_one}) {
      // Emulated tokens are slow one by one: the first half of them.
      const std::size_t count = feed == Feed::one_by_one && name == "simt" ? tiny.tokens.size() / 2 : tiny.tokens.size();
      const std::vector<float> got = logits_of(model, std::span(tiny.tokens).first(count), run.context, feed);
      const std::span<const float> wanted = std::span(run.logits).first(got.size());
      EXPECT_LE(nmse(got, wanted), 1e-8) << "feed " << static_cast<int>(feed);
      if (!run.float64.empty()) {
        EXPECT_LE(nmse(got, std::span(run.float64).first(got.size())), 1e-10) << "feed " << static_cast<int>(feed);
      }
    }
  }
}

TEST_P(GpuFamily, DrawsTheTokensOfTheCpu) {
  const auto& [name, model_name] = GetParam();
  const TinyModel tiny = load_tiny(model_name);
  const std::vector<std::byte> bytes = gguf_of(tiny);
  std::vector<std::vector<TokenId>> drawn;
  for (const std::string& where : {std::string("cpu"), name}) {
    const Device device = device_named(where);
    const Model model = must(Model::load(must(GgufFile::parse(bytes)), device));
    SessionOptions options;
    options.context = 300;
    options.kv_type = DType::f32;
    options.numerics = Numerics::exact;
    Session session = must(Session::create(model, options));
    SamplerOptions sampling;
    sampling.sample = {.temperature = 0.7f, .top_k = 20, .top_p = 0.9f, .repetition_penalty = 1.2f, .seed = 11};
    sampling.window = 8;
    Sampler sampler = must(Sampler::create(device, model.info().vocab, sampling));
    const std::span prompt = std::span(tiny.tokens).first(12);
    const Tensor logits = must(session.append(prompt));
    for (const TokenId token : prompt) must(sampler.accept(token));
    std::vector<TokenId> tokens = {must(sampler.next(logits))};
    for (int i = 0; i < 6; ++i) tokens.push_back(must(session.next(tokens.back(), sampler)));
    drawn.push_back(tokens);

    // A token costs one submission, one wait and no memory.
    const Counters before = device.counters();
    for (int i = 0; i < 3; ++i) must(session.next(tokens.back(), sampler));
    const Counters after = device.counters();
    EXPECT_EQ(after.submissions, before.submissions + 3) << where;
    EXPECT_EQ(after.syncs, before.syncs + 3) << where;
    EXPECT_EQ(after.allocations, before.allocations) << where;
    EXPECT_EQ(after.dispatches_encoded, before.dispatches_encoded) << where;
  }
  EXPECT_EQ(drawn[1], drawn[0]);
}

constexpr const char* kModels[] = {"llama", "llama_linear_tied", "mistral_window", "qwen2",         "qwen2_yarn_tied", "qwen3",
                                   "qwen3_tied", "gemma2",       "gemma3",         "gemma3_capped", "phi3",            "phi3_window_tied"};
INSTANTIATE_TEST_SUITE_P(Gpus, GpuFamily, testing::Combine(testing::ValuesIn(gpu_names()), testing::ValuesIn(kModels)),
                         [](const auto& param) { return test_name(std::get<0>(param.param) + "_" + std::get<1>(param.param)); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuFamily);

class GpuModel : public testing::TestWithParam<std::string> {};

// Weights of every format that a file may hold, whole rows of blocks.
TEST_P(GpuModel, DemoModelInItsFormats) {
  const Device device = device_named(GetParam()), cpu = device_named("cpu");
  const std::vector<TokenId> tokens = {1, 300, 17, 942, 5, 1203, 60, 777};
  for (const char* type : {"f16", "q8_0", "q4_k", "q5_k", "q6_k"}) {
    SCOPED_TRACE(type);
    const GgufFile file = must(GgufFile::open(source_dir() + "/data/demo/demo-" + type + ".gguf"));
    const Model on_gpu = must(Model::load(file, device)), on_cpu = must(Model::load(file, cpu));
    for (const Feed feed : {Feed::one_pass, Feed::one_by_one}) {
      const std::vector<float> wanted = logits_of(on_cpu, tokens, 256, feed), got = logits_of(on_gpu, tokens, 256, feed);
      EXPECT_LE(nmse(got, wanted), 1e-10);
      EXPECT_EQ(got, logits_of(on_gpu, tokens, 256, feed)) << "two runs differ";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gpus, GpuModel, testing::ValuesIn(gpu_names()), [](const auto& param) { return test_name(param.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuModel);

}  // namespace
}  // namespace mlxn::test
