#include "mlxn/ops/sample.h"

#include "mlxn/graph.h"
#include "ops/sample/philox.h"
#include "tests/conformance/cpu_variants.h"
#include "tests/reference/sample.h"

namespace mlxn::test {
namespace {

const float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

/// Philox4x32-10 as published with it (Random123, kat_vectors).
TEST(Philox, known_answers) {
  using Four = std::array<std::uint32_t, 4>;
  EXPECT_EQ(ops::philox4x32({}, {}), (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(ops::philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(ops::philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

struct Drawn {
  std::vector<std::uint32_t> ids;
  std::vector<float> logprobs;
};

/// One call: `rows` equal rows of logits, so that every row is a draw of its own.
Drawn draw(const Device& device, const std::vector<float>& logits, std::int64_t rows, const SampleOptions& options,
           std::int64_t step = 0, const std::vector<std::int64_t>& recent = {}) {
  const auto vocab = static_cast<std::int64_t>(logits.size());
  Guarded x(device, DType::f32, {rows, vocab}, {1, 4}), ids(device, DType::u32, {rows}),
      logprobs(device, DType::f32, {rows});
  std::vector<float> all;
  for (std::int64_t r = 0; r < rows; ++r) all.insert(all.end(), logits.begin(), logits.end());
  write(x, DType::f32, all);
  RecentTokens window;
  if (!recent.empty()) {
    const auto size = static_cast<std::int64_t>(recent.size());
    window.ids = must(device.allocate(DType::i32, {rows, size + 2}));  // two entries beyond the count
    std::vector<std::int32_t> values;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (const std::int64_t id : recent) values.push_back(static_cast<std::int32_t>(id));
      values.insert(values.end(), {1, 1});
    }
    must(device.upload(window.ids, std::as_bytes(std::span(values))));
    window.count = size;
  }
  must(run(device, [&](CommandEncoder& e) {
    return sample(e, x.tensor(), ids.tensor(), options, step, window, logprobs.tensor());
  }));
  EXPECT_TRUE(x.unchanged());
  EXPECT_TRUE(ids.intact());
  EXPECT_TRUE(logprobs.intact());
  Drawn drawn;
  const std::vector<std::byte> bytes = ids.read_bytes();
  drawn.ids.resize(static_cast<std::size_t>(rows));
  std::memcpy(drawn.ids.data(), bytes.data(), bytes.size());
  drawn.logprobs = logprobs.read();
  return drawn;
}

/// Draws many times and compares with the exact probabilities: nothing impossible, log-probabilities right, and a
/// chi-square over the tokens expected at least five times below the value that chance exceeds once in 10^5.
void check_distribution(const std::vector<float>& logits, const SampleOptions& options,
                        const std::vector<std::int64_t>& recent = {}) {
  constexpr std::int64_t kDraws = 4000;
  const std::vector<double> p = reference::sample(logits, options, recent);
  const Drawn drawn = draw(cpu(2), logits, kDraws, options, 5, recent);
  std::vector<int> counts(p.size());
  for (std::size_t i = 0; i < drawn.ids.size(); ++i) {
    const std::uint32_t id = drawn.ids[i];
    ASSERT_LT(id, p.size());
    ASSERT_GT(p[id], 0) << "token " << id << " is excluded";
    ASSERT_NEAR(drawn.logprobs[i], std::log(p[id]),
                2e-6 * (1 + std::fabs(std::log(p[id])) + 20 / std::max(options.temperature, 0.1f)));
    ++counts[id];
  }
  double chi = 0, rest_expected = 0, rest_counted = 0;
  int degrees = -1;
  const auto add = [&](double counted, double expected) {
    chi += (counted - expected) * (counted - expected) / expected;
    ++degrees;
  };
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] * kDraws >= 5) {
      add(counts[i], p[i] * kDraws);
    } else {
      rest_expected += p[i] * kDraws;
      rest_counted += counts[i];
    }
  }
  if (rest_expected > 5) add(rest_counted, rest_expected);
  if (degrees < 1) return;
  // Wilson and Hilferty: the cube root of chi-square / n is nearly normal; 4.26 deviations are one in 10^5.
  const double n = degrees, limit = n * std::pow(1 - 2 / (9 * n) + 4.26 * std::sqrt(2 / (9 * n)), 3);
  EXPECT_LT(chi, limit) << degrees << " degrees of freedom";
}

TEST(Sample, frequencies_follow_the_probabilities) {
  Random random(41);
  SCOPED_TRACE(random.trace());
  for (const std::size_t vocab : {1, 2, 3, 5, 17, 100, 509}) {
    const std::vector<float> logits = random.uniform(vocab, -4, 4);
    check_distribution(logits, {.seed = vocab});
    check_distribution(logits, {.temperature = 0.6f, .top_k = 7, .seed = vocab});
    check_distribution(logits, {.temperature = 1.5f, .top_p = 0.7f, .seed = vocab});
    check_distribution(logits, {.temperature = 2.0f, .min_p = 0.1f, .seed = vocab});
    check_distribution(logits, {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = vocab});
    if (HasFatalFailure()) return;
  }
  check_distribution(std::vector<float>(1000, 2.5f), {.top_p = 0.999f});  // a nucleus beyond the first guess
  check_distribution(std::vector<float>(10, 0.0f), {});
}

TEST(Sample, penalties_follow_the_reference) {
  Random random(42);
  const std::vector<float> logits = random.uniform(50, -3, 3);
  const std::vector<std::int64_t> recent = {3, 4, 3, 49, 0, 3, -1, 50, 100000, 7};
  check_distribution(logits, {.repetition_penalty = 1.8f}, recent);
  check_distribution(logits, {.repetition_penalty = 0.5f}, recent);
  check_distribution(logits, {.frequency_penalty = 0.7f}, recent);
  check_distribution(logits, {.presence_penalty = 1.5f}, recent);
  check_distribution(logits,
                     {.temperature = 0.7f,
                      .top_k = 20,
                      .top_p = 0.9f,
                      .repetition_penalty = 1.1f,
                      .frequency_penalty = 0.2f,
                      .presence_penalty = -0.3f},
                     recent);
  // A penalty is applied before temperature 0 looks for the greatest.
  EXPECT_EQ(draw(cpu(1), {1, 5, 4}, 1, {.temperature = 0, .presence_penalty = 2}, 0, {1}).ids[0], 2u);
}

TEST(Sample, temperature_zero_is_argmax) {
  for (const std::int64_t k : {0, 1, 3}) {
    const SampleOptions options{.temperature = 0, .top_k = k, .top_p = 0.5f, .min_p = 0.5f, .seed = 9};
    const Drawn drawn = draw(cpu(2), {1, 7, 3, 7, kNan}, 3, options);
    EXPECT_EQ(drawn.ids, (std::vector<std::uint32_t>{1, 1, 1}));
    EXPECT_EQ(drawn.logprobs, (std::vector<float>{0, 0, 0}));
  }
}

TEST(Sample, extreme_options_leave_one_token) {
  const std::vector<float> logits = {0.5f, 2.0f, 2.0f, -1.0f};
  for (const SampleOptions& options :
       {SampleOptions{.top_k = 1}, SampleOptions{.top_p = 0}, SampleOptions{.temperature = 1e-30f, .top_k = 1},
        SampleOptions{.top_k = 1, .min_p = 1}}) {
    for (const std::uint32_t id : draw(cpu(2), logits, 64, options).ids) EXPECT_EQ(id, 1u);
  }
  for (const std::uint32_t id : draw(cpu(2), logits, 64, {.min_p = 1}).ids) EXPECT_TRUE(id == 1 || id == 2);
  std::vector<float> peak(100, 0.0f);
  peak[42] = 100;
  for (const std::uint32_t id : draw(cpu(2), peak, 64, {}).ids) EXPECT_EQ(id, 42u);
}

TEST(Sample, nan_and_infinity) {
  for (const SampleOptions& options : {SampleOptions{}, SampleOptions{.top_k = 2}, SampleOptions{.top_p = 0.9f},
                                       SampleOptions{.temperature = 0.5f, .top_k = 50, .min_p = 0.2f}}) {
    for (const std::uint32_t id : draw(cpu(2), {kNan, -kInf, 1, kNan, -kInf}, 50, options).ids) EXPECT_EQ(id, 2u);
    bool first = false, second = false;
    for (const std::uint32_t id : draw(cpu(2), {3e38f, kInf, kNan, 0, kInf}, 50, options).ids) {
      EXPECT_TRUE(id == 1 || id == 4);
      first = first || id == 1;
      second = second || id == 4;
    }
    EXPECT_TRUE(second && first);
    for (const std::vector<float>& none : {std::vector<float>{kNan, kNan}, std::vector<float>{-kInf, kNan}}) {
      const Drawn drawn = draw(cpu(1), none, 2, options);
      EXPECT_EQ(drawn.ids, (std::vector<std::uint32_t>{0, 0}));
      EXPECT_EQ(drawn.logprobs, (std::vector<float>{-kInf, -kInf}));
    }
  }
}

TEST(Sample, the_same_call_gives_the_same_tokens) {
  Random random(43);
  const std::vector<float> logits = random.uniform(5003, -3, 3);
  for (const SampleOptions& options :
       {SampleOptions{.seed = 1}, SampleOptions{.top_k = 40, .seed = 1}, SampleOptions{.top_p = 0.9f, .seed = 1}}) {
    const Drawn one = draw(cpu(1), logits, 100, options, 3), two = draw(cpu(2), logits, 100, options, 3);
    EXPECT_EQ(one.ids, two.ids);
    EXPECT_EQ(one.logprobs, two.logprobs);
    SampleOptions other = options;
    other.seed = INT64_C(1) << 40;
    EXPECT_NE(draw(cpu(2), logits, 100, other, 3).ids, two.ids);
    EXPECT_NE(draw(cpu(2), logits, 100, options, 4).ids, two.ids);
    EXPECT_NE(draw(cpu(2), logits, 100, options, INT64_C(1) << 40).ids, two.ids);
  }
}

/// Computed once from the definition; a change means that recorded seeds no longer reproduce.
TEST(Sample, tokens_of_a_seed_stay_what_they_are) {
  const std::vector<float> logits(1000, 0.0f);
  for (const int step : {0, 1, 1000}) {
    const double u = ops::philox_uniform(42, static_cast<std::uint64_t>(step), 0);
    EXPECT_EQ(draw(cpu(1), logits, 1, {.seed = 42}, step).ids[0], static_cast<std::uint32_t>(u * 1000));
  }
}

TEST(Sample, large_vocabulary) {
  Random random(44);
  std::vector<float> logits = random.uniform(150001, -10, 10);
  check_distribution({logits.begin(), logits.begin() + 1500}, {.temperature = 0.9f, .top_p = 0.98f});
  for (const SampleOptions& options : {SampleOptions{}, SampleOptions{.top_k = 40}, SampleOptions{.top_k = 150000},
                                       SampleOptions{.top_p = 0.99f}, SampleOptions{.temperature = 0.7f, .min_p = 0.05f}}) {
    const std::vector<double> p = reference::sample(logits, options);
    const Drawn drawn = draw(cpu(2), logits, 3, options);
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_GT(p[drawn.ids[i]], 0);
      EXPECT_NEAR(drawn.logprobs[i], std::log(p[drawn.ids[i]]), 1e-4);
    }
  }
}

TEST(Sample, graph_binds_the_step_anew) {
  const Device& device = cpu(2);
  Random random(45);
  const std::vector<float> logits = random.uniform(64, -1, 1);
  const Tensor x = must(device.allocate(DType::f32, {64})), ids = must(device.allocate(DType::u32, {1}));
  must(device.upload(x, std::as_bytes(std::span(logits))));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
    MLXN_TRY(const Scalar<std::int64_t> step, e.parameter("step", 0));
    return sample(e, x, ids, {.seed = 3}, step);
  }));
  for (const int step : {0, 1, 2, 50}) {
    must(graph.set("step", step));
    must(graph.replay_and_wait());
    EXPECT_EQ(must(ids.read<std::uint32_t>())[0], draw(device, logits, 1, {.seed = 3}, step).ids[0]) << "step " << step;
  }
}

TEST(Sample, graph_takes_counts_inside_the_window) {
  const Device& device = cpu(2);
  const std::vector<float> logits = {4, 3, 2, 1};
  const std::vector<std::int32_t> used = {0, 1};
  const Tensor x = must(device.allocate(DType::f32, {4})), ids = must(device.allocate(DType::u32, {1}));
  const Tensor recent = must(device.allocate(DType::i32, {2}));
  must(device.upload(x, std::as_bytes(std::span(logits))));
  must(device.upload(recent, std::as_bytes(std::span(used))));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
    RecentTokens window;
    window.ids = recent;
    MLXN_TRY(window.count, e.parameter("count", 0));
    return sample(e, x, ids, {.top_k = 1, .presence_penalty = 10}, 0, window);
  }));
  for (const std::uint32_t count : {0u, 1u, 2u}) {  // so many of the best are penalised
    must(graph.set("count", count));
    must(graph.replay_and_wait());
    EXPECT_EQ(must(ids.read<std::uint32_t>())[0], count);
  }
  EXPECT_TRUE(fails_with(graph.set("count", 3), ErrorCode::out_of_range, {"count", "3"}));
  EXPECT_TRUE(fails_with(graph.set("count", -1), ErrorCode::out_of_range, {}));
}

TEST(Sample, options_outside_their_domain_are_named) {
  const Device& device = cpu(2);
  const Tensor x = must(device.allocate(DType::f32, {8})), ids = must(device.allocate(DType::u32, {1}));
  const auto refused = [&](std::string_view name, float SampleOptions::*member, std::initializer_list<float> values) {
    for (const float value : values) {
      SampleOptions options;
      options.*member = value;
      CommandEncoder encoder = must(device.encoder());
      EXPECT_TRUE(fails_with(sample(encoder, x, ids, options, 0), ErrorCode::invalid_argument, {"sample", name})) << value;
    }
  };
  refused("temperature", &SampleOptions::temperature, {-1, -0.001f, kInf, -kInf, kNan});
  refused("top_p", &SampleOptions::top_p, {-0.1f, 1.1f, kInf, kNan});
  refused("min_p", &SampleOptions::min_p, {-0.1f, 1.1f, kInf, kNan});
  refused("repetition_penalty", &SampleOptions::repetition_penalty, {0, -1, kInf, kNan});
  refused("frequency_penalty", &SampleOptions::frequency_penalty, {kInf, -kInf, kNan});
  refused("presence_penalty", &SampleOptions::presence_penalty, {kInf, -kInf, kNan});
  CommandEncoder encoder = must(device.encoder());
  EXPECT_TRUE(fails_with(sample(encoder, x, ids, {.temperature = -2}, 0), ErrorCode::invalid_argument, {"-2"}));
}

TEST(Sample, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor x = make(DType::f32, {4, 8}), ids = make(DType::u32, {4}), logprobs = make(DType::f32, {4});
  const auto attempt = [&](const Tensor& logits, const Tensor& out, const RecentTokens& recent = {},
                           const Tensor& logs = {}) {
    CommandEncoder encoder = must(device.encoder());
    return sample(encoder, logits, out, {}, 0, recent, logs);
  };
  const auto window = [&](const Tensor& tensor, std::int64_t count) { return RecentTokens{tensor, count}; };
  const Tensor recent = make(DType::i32, {4, 6});
  EXPECT_TRUE(attempt(x, ids, window(recent, 6), logprobs).has_value());
  EXPECT_TRUE(attempt(x, ids, window(make(DType::u32, {4, 6}), 0)).has_value());
  EXPECT_TRUE(fails_with(attempt({}, ids), ErrorCode::invalid_argument, {"sample", "logits"}));
  EXPECT_TRUE(fails_with(attempt(x, {}), ErrorCode::invalid_argument, {"sample", "ids"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::f16, {4, 8}), ids), ErrorCode::bad_dtype, {"sample", "logits", "f16", "f32"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::i32, {4})), ErrorCode::bad_dtype, {"sample", "ids", "i32"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, {}, make(DType::f16, {4})), ErrorCode::bad_dtype, {"sample", "logprobs", "f16"}));
  EXPECT_TRUE(
      fails_with(attempt(x, ids, window(make(DType::f32, {4, 6}), 1)), ErrorCode::bad_dtype, {"recent.ids", "f32"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::u32, {3})), ErrorCode::bad_shape, {"sample", "ids", "[3]", "[4]"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, {}, make(DType::f32, {3})), ErrorCode::bad_shape, {"sample", "logprobs", "[3]"}));
  EXPECT_TRUE(
      fails_with(attempt(x, ids, window(make(DType::i32, {3, 6}), 1)), ErrorCode::bad_shape, {"recent.ids", "[3, 6]"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::f32, {1, 4, 8}), ids), ErrorCode::bad_shape, {"sample", "logits"}));
  EXPECT_TRUE(fails_with(attempt(must(x.slice(1, 0, 0)), ids), ErrorCode::bad_shape, {"sample", "logits", "[4, 0]"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, window(recent, 7)), ErrorCode::out_of_range, {"recent.count", "7", "6"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, window(recent, -1)), ErrorCode::out_of_range, {"recent.count", "-1"}));
  const Tensor over_x = must(must(x.reshape({32})).slice(0, 0, 4));
  EXPECT_TRUE(fails_with(attempt(x, must(over_x.reinterpret(DType::u32, {4}))), ErrorCode::aliased, {"ids", "logits"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, {}, over_x), ErrorCode::aliased, {"logprobs", "logits"}));
  EXPECT_TRUE(
      fails_with(attempt(x, ids, {}, must(ids.reinterpret(DType::f32, {4}))), ErrorCode::aliased, {"logprobs", "ids"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, window(must(ids.reshape({4, 1})), 1)), ErrorCode::aliased, {"ids", "recent.ids"}));
  EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::f32, {4, 8})), ids), ErrorCode::wrong_device, {"logits"}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(sample(closed, x, ids, {}, 0), ErrorCode::wrong_state, {"sample"}));
  EXPECT_TRUE(attempt(must(x.slice(0, 1, 1)), must(ids.slice(0, 1, 1))).has_value());
}

}  // namespace
}  // namespace mlxn::test
