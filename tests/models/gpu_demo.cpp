// The demo model on every GPU that is there, and on the emulator at a reduced size, as its users run it (default options),
// against exact arithmetic on the CPU.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <span>

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/models/golden.h"
#include "tests/support/devices.h"
#include "tests/support/must.h"
#include "tests/support/source_dir.h"

namespace mlxn::test {
namespace {

std::vector<std::string> gpus() {
  std::vector<std::string> names = device_names();
  std::erase(names, "cpu");
  return names;
}

GgufFile demo_file(const std::string& type) {
  return must(GgufFile::open(source_dir() + "/data/demo/demo-" + type + ".gguf"));
}

/// The logits after the prompt and after each of the tokens that are fed to it, [1 + tokens][vocab].
std::vector<float> forced_logits(const Model& model, const SessionOptions& options, std::span<const TokenId> prompt,
                                 std::span<const TokenId> tokens) {
  Session session = must(Session::create(model, options));
  const auto vocab = static_cast<std::size_t>(model.info().vocab);
  std::vector<float> all((1 + tokens.size()) * vocab);
  const auto keep = [&](std::size_t row, const Tensor& logits) {
    must(model.device().download(std::as_writable_bytes(std::span(all).subspan(row * vocab, vocab)), logits));
  };
  keep(0, must(session.append(prompt)));
  for (std::size_t i = 0; i < tokens.size(); ++i) keep(i + 1, must(session.append(tokens.subspan(i, 1))));
  return all;
}

class GpuDemo : public testing::TestWithParam<std::tuple<std::string, const char*>> {};

TEST_P(GpuDemo, IsTheExactModelOfTheCpu) {
  constexpr double kMostDifference = 1e-2, kChoiceGap = 2e-2;
  const auto& [name, type] = GetParam();
  const bool is_emulated = name == "simt";
  const GgufFile file = demo_file(type);
  const Golden golden = load_golden(type);
  const Model on_gpu = must(Model::load(file, device_named(name))), on_cpu = must(Model::load(file, device_named("cpu")));
  const auto vocab = static_cast<std::size_t>(on_cpu.info().vocab);
  SessionOptions gpu_options, cpu_options;
  cpu_options.numerics = Numerics::exact;
  cpu_options.kv_type = DType::f32;
  double most = 0;
  int choices = 0, close = 0;
  ASSERT_EQ(golden.prompts.size(), 3u);
  for (const Golden::Prompt& p : golden.prompts) {
    SCOPED_TRACE(p.text);
    ASSERT_EQ(p.greedy_ids.size(), 128u);
    std::span<const TokenId> prompt = p.prompt_ids, tokens = p.greedy_ids;
    if (is_emulated) {
      if (&p != &golden.prompts[0]) break;
      prompt = prompt.first(std::min<std::size_t>(prompt.size(), 8));
      tokens = tokens.first(6);
    }
    const std::vector<float> wanted = forced_logits(on_cpu, cpu_options, prompt, tokens);
    const std::vector<float> got = forced_logits(on_gpu, gpu_options, prompt, tokens);
    EXPECT_EQ(got, forced_logits(on_gpu, gpu_options, prompt, tokens)) << "two runs differ";
    for (std::size_t row = 0; row <= tokens.size(); ++row) {
      const std::span<const float> w = std::span(wanted).subspan(row * vocab, vocab), g = std::span(got).subspan(row * vocab, vocab);
      for (std::size_t i = 0; i < vocab; ++i) {
        const double d = std::abs(static_cast<double>(g[i]) - w[i]);
        ASSERT_FALSE(std::isnan(d)) << "token " << row << ", logit " << i;
        most = std::max(most, d);
      }
      const auto best = std::max_element(w.begin(), w.end());
      float second = -INFINITY;
      for (auto it = w.begin(); it != w.end(); ++it) {
        if (it != best) second = std::max(second, *it);
      }
      if (*best - second <= kChoiceGap) {
        ++close;
        continue;
      }
      ++choices;
      EXPECT_EQ(std::max_element(g.begin(), g.end()) - g.begin(), best - w.begin()) << "token " << row;
    }
  }
  EXPECT_LE(most, kMostDifference);
  EXPECT_GT(choices, 0);
  std::printf("%s %s: largest logit difference %.2e, %d choices equal or reported, %d too close to tell\n", name.c_str(), type, most,
              choices, close);
}

INSTANTIATE_TEST_SUITE_P(Gpus, GpuDemo, testing::Combine(testing::ValuesIn(gpus()), testing::Values("f16", "q8_0", "q4_k")),
                         [](const auto& param) { return test_name(std::get<0>(param.param) + "_" + std::get<1>(param.param)); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuDemo);

class GpuLoad : public testing::TestWithParam<std::string> {};

TEST_P(GpuLoad, AContextThatCannotFitIsRefusedAndASmallerOneWorks) {
  const Device device = device_named(GetParam());
  const Model model = must(Model::load(demo_file("q4_k"), device));
  SessionOptions options;
  options.context = (std::int64_t{1} << 31) - 1;
  const std::uint64_t free = device.free_bytes();
  const auto huge = Session::create(model, options);
  // 4 to 6 layers of 2 x 4 heads of 64 f16 for each position.
  const auto bytes = static_cast<std::uint64_t>(options.context * model.info().layers * 2 * model.info().kv_heads * model.info().head_dim * 2);
  EXPECT_TRUE(fails_with(huge, ErrorCode::out_of_memory, {std::to_string(bytes), "available"}));
  EXPECT_GT(bytes, free);
  options.context = 64;
  Session session = must(Session::create(model, options));
  const std::vector<TokenId> prompt = {1, 300, 17};
  must(session.append(prompt));
}

// What `generate --stats` shows: a token is one launch, one wait and no memory.
TEST_P(GpuLoad, ATokenIsOneLaunch) {
  const Device device = device_named(GetParam());
  const Model model = must(Model::load(demo_file("q4_k"), device));
  Session session = must(Session::create(model));
  SamplerOptions sampling;
  sampling.sample = {.temperature = 0.8f, .top_k = 40, .repetition_penalty = 1.1f, .seed = 3};
  sampling.window = 64;
  Sampler sampler = must(Sampler::create(device, model.info().vocab, sampling));
  const std::vector<TokenId> prompt = {1, 300, 17};
  TokenId token = must(sampler.next(must(session.append(prompt))));
  token = must(session.next(token, sampler));  // records the graph
  const Counters before = device.counters();
  constexpr std::uint64_t kTokens = 4;
  for (std::uint64_t i = 0; i < kTokens; ++i) token = must(session.next(token, sampler));
  const Counters after = device.counters();
  EXPECT_EQ(after.submissions, before.submissions + kTokens);
  EXPECT_EQ(after.graph_launches, before.graph_launches + (device.capabilities().backend == "cuda" ? kTokens : 0));
  EXPECT_EQ(after.syncs, before.syncs + kTokens);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.dispatches_encoded, before.dispatches_encoded);
}

// Weights that leave less than a third of the device free have no raw blocks beside them there: they are prepared all the same.
TEST_P(GpuLoad, PreparesAlthoughItTakesMostOfTheDevice) {
  const GgufFile file = demo_file("q8_0");
  std::uint64_t bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) bytes += tensor.bytes;
  DeviceOptions options;
  options.memory_limit_bytes = bytes / 100 * 135;
  const Device device = must(Device::open(GetParam(), options));
  const Model model = must(Model::load(file, device));
  EXPECT_TRUE(model.info().prepared);
  EXPECT_EQ(model.info().prepare_note, "");
  LoadOptions raw;
  raw.prepare = PrepareMode::off;
  EXPECT_FALSE(must(Model::load(file, device_named(GetParam()), raw)).info().prepared);
}

INSTANTIATE_TEST_SUITE_P(Gpus, GpuLoad, testing::ValuesIn(gpus()), [](const auto& param) { return test_name(param.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuLoad);

}  // namespace
}  // namespace mlxn::test
