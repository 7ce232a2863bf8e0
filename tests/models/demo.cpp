// The demo model against llama.cpp on the same files.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/models/golden.h"
#include "tests/support/devices.h"
#include "tests/support/must.h"
#include "tests/support/source_dir.h"

namespace mlxn {
namespace {

std::string demo_path(const std::string& type) { return test::source_dir() + "/data/demo/demo-" + type + ".gguf"; }

Model load(const std::string& type, const Device& device, PrepareMode mode = PrepareMode::automatic) {
  LoadOptions options;
  options.prepare = mode;
  return test::must(Model::load(test::must(GgufFile::open(demo_path(type))), device, options));
}

struct Comparison {
  double nmse = 0;
  int wrong_choices = 0;  // arg-max differs although the reference's two best are more than `gap` apart
};

/// Feeds the reference's tokens and compares the logits at its 128 positions.
Comparison compare(const Model& model, const test::Golden& golden, const SessionOptions& options, float gap, bool in_one_pass) {
  double error = 0, power = 0;
  Comparison result;
  const auto vocab = static_cast<std::size_t>(model.info().vocab);
  const std::size_t prompts = test::wants_small_sizes("cpu") ? 1 : golden.prompts.size();
  for (std::size_t p = 0; p < prompts; ++p) {
    const auto& prompt = golden.prompts[p];
    Session session = test::must(Session::create(model, options));
    const std::size_t positions = prompt.greedy_ids.size();
    std::vector<float> all(positions * vocab);
    if (in_one_pass) {
      std::vector<TokenId> tokens = prompt.prompt_ids;
      tokens.insert(tokens.end(), prompt.greedy_ids.begin(), prompt.greedy_ids.end() - 1);
      const Tensor logits = test::must(
          model.device().allocate(DType::f32, {static_cast<std::int64_t>(tokens.size()), static_cast<std::int64_t>(vocab)}));
      test::must(session.append_with_logits(tokens, logits));
      const auto mapped = test::must(logits.read<float>());
      std::memcpy(all.data(), mapped.data() + (prompt.prompt_ids.size() - 1) * vocab, all.size() * 4);
    } else {
      Tensor logits = test::must(session.append(prompt.prompt_ids));
      for (std::size_t i = 0; i < positions; ++i) {
        {
          const auto mapped = test::must(logits.read<float>());
          std::memcpy(all.data() + i * vocab, mapped.data(), vocab * 4);
        }
        if (i + 1 < positions) logits = test::must(session.append({&prompt.greedy_ids[i], 1}));
      }
    }
    for (std::size_t i = 0; i < positions; ++i) {
      const float* got = all.data() + i * vocab;
      for (std::size_t j = 0; j < golden.vocab_ids.size(); ++j) {
        const double want = golden.logits[(p * positions + i) * golden.vocab_ids.size() + j];
        const double d = static_cast<double>(got[golden.vocab_ids[j]]) - want;
        error += d * d;
        power += want * want;
      }
      const float* top2 = golden.top2_logits.data() + (p * positions + i) * 2;
      const auto best = static_cast<TokenId>(std::max_element(got, got + vocab) - got);
      if (top2[0] - top2[1] > gap && best != golden.top2_ids[p][i][0]) ++result.wrong_choices;
    }
  }
  result.nmse = error / power;
  return result;
}

class DemoModel : public testing::TestWithParam<const char*> {};

TEST_P(DemoModel, ExactLogitsAreThoseOfLlamaCpp) {
  const Device device = test::must(Device::open("cpu"));
  const test::Golden golden = test::load_golden(GetParam());
  SessionOptions options;
  options.kv_type = DType::f32;
  options.numerics = Numerics::exact;
  for (const PrepareMode mode : {PrepareMode::on, PrepareMode::off}) {
    const Model model = load(GetParam(), device, mode);
    for (const bool in_one_pass : {false, true}) {
      const Comparison c = compare(model, golden, options, 1e-3f, in_one_pass);
      EXPECT_LE(c.nmse, 1e-8) << "prepared " << (mode == PrepareMode::on) << ", one pass " << in_one_pass;
      EXPECT_EQ(c.wrong_choices, 0);
      RecordProperty("nmse", std::to_string(c.nmse));
      std::printf("%s prepared %d one pass %d: NMSE %.2e\n", GetParam(), mode == PrepareMode::on, in_one_pass, c.nmse);
    }
  }
}

TEST_P(DemoModel, QuantisedActivationsAreAsCloseAsThoseOfLlamaCpp) {
  const Device device = test::must(Device::open("cpu"));
  const test::Golden golden = test::load_golden(GetParam());
  SessionOptions options;
  options.kv_type = DType::f32;
  options.numerics = Numerics::int8act;
  const Comparison c = compare(load(GetParam(), device), golden, options, 1e9f, false);
  std::printf("%s int8act: NMSE %.2e, llama.cpp %.2e\n", GetParam(), c.nmse, golden.llamacpp_nmse);
  EXPECT_LE(c.nmse, 1.5 * golden.llamacpp_nmse);
}

INSTANTIATE_TEST_SUITE_P(Files, DemoModel, testing::Values("f16", "q8_0", "q4_k", "q5_k", "q6_k"));

TEST(Session, DecodeGivesTheSameBitsOnEveryRunAndThreadCount) {
  std::vector<float> first;
  for (const int threads : {1, 2, 2}) {
    DeviceOptions options;
    options.threads = threads;
    const Device device = test::must(Device::open("cpu", options));
    const Model model = load("q4_k", device);
    Session session = test::must(Session::create(model));
    const std::vector<TokenId> prompt = {1, 400, 500, 600};
    test::must(session.append(prompt));
    const TokenId token = 700;
    const Tensor logits = test::must(session.append({&token, 1}));
    const auto mapped = test::must(logits.read<float>());
    if (first.empty()) first.assign(mapped.begin(), mapped.end());
    EXPECT_EQ(0, std::memcmp(first.data(), mapped.data(), first.size() * 4)) << threads;
  }
}

TEST(Session, TruncatingAndGoingOnEqualsNeverHavingBeenThere) {
  const Device device = test::must(Device::open("cpu"));
  const Model model = load("q8_0", device);
  Session a = test::must(Session::create(model)), b = test::must(Session::create(model));
  const std::vector<TokenId> prompt = {1, 400, 500}, detour = {30, 40, 50, 60, 70};
  test::must(a.append(prompt));
  test::must(b.append(prompt));
  test::must(b.append(detour));
  test::must(b.truncate(3));
  const TokenId token = 700;
  const Tensor la = test::must(a.append({&token, 1})), lb = test::must(b.append({&token, 1}));
  const auto ma = test::must(la.read<float>()), mb = test::must(lb.read<float>());
  EXPECT_EQ(0, std::memcmp(ma.data(), mb.data(), ma.size() * 4));
}

TEST(Session, PromptInChunksIsTheSameTextAsInOne) {
  const Device device = test::must(Device::open("cpu"));
  const Model model = load("f16", device);
  std::vector<TokenId> prompt = {1};
  for (TokenId i = 0; i < 40; ++i) prompt.push_back(300 + 7 * i);
  SessionOptions small, large;
  small.batch = 7;
  small.numerics = large.numerics = Numerics::exact;
  Session a = test::must(Session::create(model, small)), b = test::must(Session::create(model, large));
  const Tensor la = test::must(a.append(prompt)), lb = test::must(b.append(prompt));
  const auto ma = test::must(la.read<float>()), mb = test::must(lb.read<float>());
  for (std::size_t i = 0; i < ma.size(); ++i) EXPECT_NEAR(ma[i], mb[i], 1e-3f);
}

TEST(Session, RefusesWhatDoesNotFitAndStaysUsable) {
  const Device device = test::must(Device::open("cpu"));
  const Model model = load("q8_0", device);
  SessionOptions options;
  options.context = 4;
  Session session = test::must(Session::create(model, options));
  const std::vector<TokenId> five = {1, 2, 3, 4, 5}, outside = {1, 2048}, negative = {-1}, good = {1, 300};
  EXPECT_EQ(session.append(five).error().code(), ErrorCode::out_of_range);
  EXPECT_EQ(session.append(outside).error().code(), ErrorCode::out_of_range);
  EXPECT_EQ(session.append(negative).error().code(), ErrorCode::out_of_range);
  EXPECT_EQ(session.append({}).error().code(), ErrorCode::invalid_argument);
  const Tensor few = test::must(device.allocate(DType::f16, {2, 5}));
  EXPECT_TRUE(test::fails_with(session.append_with_logits(good, few), ErrorCode::bad_shape, {"logits is f16 [2, 5]", "f32 [2, 2048]"}));
  EXPECT_TRUE(test::fails_with(session.append_with_logits(good, {}), ErrorCode::bad_shape, {"logits is an empty tensor", "f32 [2, 2048]"}));
  EXPECT_EQ(session.length(), 0);
  test::must(session.append(good));
  EXPECT_EQ(session.length(), 2);
  options.context = -3;
  EXPECT_EQ(Session::create(model, options).error().code(), ErrorCode::invalid_argument);
  options.context = (std::int64_t{1} << 31) - 1;  // 8 TiB of keys and values
  const auto huge = Session::create(model, options);
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code(), ErrorCode::out_of_memory);
  EXPECT_NE(huge.error().message().find("available"), std::string::npos);
  options.context = 16;
  EXPECT_TRUE(Session::create(model, options));
  options.kv_type = static_cast<DType>(200);
  EXPECT_TRUE(test::fails_with(Session::create(model, options), ErrorCode::bad_dtype, {"session", "dtype 200 is none"}));
  options.kv_type = DType::f16;
  options.numerics = Numerics::bf16;
  EXPECT_TRUE(test::fails_with(Session::create(model, options), ErrorCode::unsupported, {"session", "CPU", "bf16"}));
  options.numerics = static_cast<Numerics>(50);
  EXPECT_TRUE(test::fails_with(Session::create(model, options), ErrorCode::invalid_argument, {"session", "numerics is 50", "0 to 4"}));
  LoadOptions loading;
  loading.prepare = static_cast<PrepareMode>(9);
  EXPECT_TRUE(test::fails_with(Model::load(test::must(GgufFile::open(demo_path("q8_0"))), device, loading), ErrorCode::invalid_argument,
                               {"prepare is 9", "0 to 2"}));
}

TEST(Session, DecodingAllocatesNothingAndWaitsOncePerPass) {
  const Device device = test::must(Device::open("cpu"));
  const Model model = load("q8_0", device);
  Session session = test::must(Session::create(model));
  const std::vector<TokenId> prompt = {1, 400, 500};
  test::must(session.append(prompt));
  TokenId token = 300;
  test::must(session.append({&token, 1}));
  const Counters before = device.counters();
  for (int i = 0; i < 10; ++i) test::must(session.append({&token, 1}));
  const Counters after = device.counters();
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.submissions, before.submissions + 10);
  EXPECT_EQ(after.syncs, before.syncs + 10);
  EXPECT_EQ(after.dispatches_encoded, before.dispatches_encoded);
  EXPECT_GT(after.dispatches_executed, before.dispatches_executed);
}

TEST(Model, AnEmptyHandleOrFileHasNothing) {
  const Model none;
  EXPECT_FALSE(none.defined());
  EXPECT_TRUE(none.info().architecture.empty() && none.info().name.empty());
  EXPECT_EQ(none.info().vocab, 0);
  EXPECT_FALSE(none.device().defined());
  EXPECT_TRUE(test::fails_with(Session::create(none), ErrorCode::invalid_argument, {"empty model"}));
  GgufFile file = test::must(GgufFile::open(demo_path("q8_0")));
  const GgufFile taken = std::move(file);
  EXPECT_TRUE(test::fails_with(Model::load(file, test::must(Device::open("cpu"))), ErrorCode::wrong_state,  // NOLINT: what is left
                               {"moved from"}));
}

TEST(Model, LoadCanBeCancelled) {
  const Device device = test::must(Device::open("cpu"));
  LoadOptions options;
  options.progress = [](std::uint64_t done, std::uint64_t all) { return done * 2 < all; };
  const auto model = Model::load(test::must(GgufFile::open(demo_path("q8_0"))), device, options);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), ErrorCode::cancelled);
}

TEST(Model, WhatProgressThrowsIsTheCallersMistake) {
  const Device device = test::must(Device::open("cpu"));
  const GgufFile file = test::must(GgufFile::open(demo_path("q8_0")));
  LoadOptions options;
  options.progress = [](std::uint64_t, std::uint64_t) -> bool { throw std::runtime_error("no window"); };
  EXPECT_TRUE(test::fails_with(Model::load(file, device, options), ErrorCode::invalid_argument, {"`progress` threw", "no window"}));
  options.progress = [](std::uint64_t, std::uint64_t) -> bool { throw 7; };
  EXPECT_TRUE(test::fails_with(Model::load(file, device, options), ErrorCode::invalid_argument, {"`progress` threw"}));
  options.progress = [](std::uint64_t, std::uint64_t) -> bool { throw std::bad_alloc(); };
  EXPECT_TRUE(test::fails_with(Model::load(file, device, options), ErrorCode::out_of_memory, {}));
}

}  // namespace
}  // namespace mlxn
