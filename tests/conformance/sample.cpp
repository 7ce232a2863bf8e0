#include "mlxn/ops/sample.h"

#include <array>

#include "mlxn/graph.h"
#include "ops/sample/philox.h"
#include "tests/conformance/variants.h"
#include "tests/reference/sample.h"

namespace mlxn::test::sample_suite {
namespace {

const float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

/// Philox4x32-10 as published with it (Random123, kat_vectors).
TEST(Philox, known_answers) {
  using Four = std::array<std::uint32_t, 4>;
  const auto words = [](const Four& counter, std::uint32_t key0, std::uint32_t key1) {
    const ops::PhiloxWords w = ops::philox4x32({counter[0], counter[1], counter[2], counter[3]}, key0, key1);
    return Four{w.a, w.b, w.c, w.d};
  };
  EXPECT_EQ(words({}, 0, 0), (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(words({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u), (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(words({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

struct Drawn {
  std::vector<std::uint32_t> ids;
  std::vector<float> logprobs;
};

std::uint32_t id_in(const Device& device, const Tensor& ids) {
  std::uint32_t id = 0;
  must(device.download(std::as_writable_bytes(std::span(&id, 1)), ids));
  return id;
}

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

/// Every other device draws the CPU's tokens. Their log-probabilities are those of equal quotients of integers: two conversions
/// and a quotient in f32, a logarithm within two units.
void check_same_tokens(const std::vector<float>& logits, const SampleOptions& options, const std::vector<std::int64_t>& recent = {},
                       std::int64_t rows = 3) {
  const Drawn wanted = draw(cpu(2), logits, rows, options, 5, recent);
  for (const Variant& v : families()) {
    if (v.family == "cpu") continue;
    SCOPED_TRACE(v.name);
    const Drawn drawn = draw(v.device, logits, rows, options, 5, recent);
    ASSERT_EQ(drawn.ids, wanted.ids);
    for (std::size_t i = 0; i < drawn.logprobs.size(); ++i) {
      if (std::isinf(wanted.logprobs[i])) {
        ASSERT_EQ(drawn.logprobs[i], wanted.logprobs[i]);
      } else {
        ASSERT_NEAR(drawn.logprobs[i], wanted.logprobs[i], 3 * 0x1p-24 + 5 * 0x1p-24 * std::fabs(wanted.logprobs[i]));
      }
    }
  }
}

/// Draws many times and compares with the exact probabilities: nothing impossible, log-probabilities right, and a
/// chi-square over the tokens expected at least five times below the value that chance exceeds once in 10^5.
void check_distribution(const std::vector<float>& logits, const SampleOptions& options,
                        const std::vector<std::int64_t>& recent = {}) {
  constexpr std::int64_t kDraws = 4000;
  check_same_tokens(logits, options, recent);
  if (testing::Test::HasFatalFailure()) return;
  if (!wants_device("cpu")) return;
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
  for (const Variant& v : families()) {
    EXPECT_EQ(draw(v.device, {1, 5, 4}, 1, {.temperature = 0, .presence_penalty = 2}, 0, {1}).ids[0], 2u) << v.name;
  }
}

TEST(Sample, temperature_zero_is_argmax) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    for (const std::int64_t k : {0, 1, 3}) {
      const SampleOptions options{.temperature = 0, .top_k = k, .top_p = 0.5f, .min_p = 0.5f, .seed = 9};
      const Drawn drawn = draw(v.device, {1, 7, 3, 7, kNan}, 3, options);
      EXPECT_EQ(drawn.ids, (std::vector<std::uint32_t>{1, 1, 1}));
      EXPECT_EQ(drawn.logprobs, (std::vector<float>{0, 0, 0}));
    }
  }
}

/// Draws on every family of devices, 64 on the CPU, fewer elsewhere.
std::vector<std::uint32_t> draws_everywhere(const std::vector<float>& logits, const SampleOptions& options) {
  std::vector<std::uint32_t> all;
  for (const Variant& v : families()) {
    const std::vector<std::uint32_t> ids = draw(v.device, logits, v.family == "cpu" ? 64 : 8, options).ids;
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

TEST(Sample, extreme_options_leave_one_token) {
  const std::vector<float> logits = {0.5f, 2.0f, 2.0f, -1.0f};
  for (const SampleOptions& options :
       {SampleOptions{.top_k = 1}, SampleOptions{.top_p = 0}, SampleOptions{.temperature = 1e-30f, .top_k = 1},
        SampleOptions{.top_p = 1e-30f}, SampleOptions{.top_k = 1, .min_p = 1}}) {
    for (const std::uint32_t id : draws_everywhere(logits, options)) EXPECT_EQ(id, 1u);
  }
  for (const std::uint32_t id : draws_everywhere(logits, {.min_p = 1})) EXPECT_TRUE(id == 1 || id == 2);
  std::vector<float> peak(100, 0.0f);
  peak[42] = 100;
  for (const std::uint32_t id : draws_everywhere(peak, {})) EXPECT_EQ(id, 42u);
}

TEST(Sample, nan_and_infinity) {
  for (const SampleOptions& options : {SampleOptions{}, SampleOptions{.top_k = 2}, SampleOptions{.top_p = 0.9f},
                                       SampleOptions{.temperature = 0.5f, .top_k = 50, .min_p = 0.2f}}) {
    for (const std::uint32_t id : draws_everywhere({kNan, -kInf, 1, kNan, -kInf}, options)) EXPECT_EQ(id, 2u);
    bool first = false, second = false;
    for (const std::uint32_t id : draws_everywhere({3e38f, kInf, kNan, 0, kInf}, options)) {
      EXPECT_TRUE(id == 1 || id == 4);
      first = first || id == 1;
      second = second || id == 4;
    }
    EXPECT_TRUE(second && first);
    for (const Variant& v : families()) {
      for (const std::vector<float>& none : {std::vector<float>{kNan, kNan}, std::vector<float>{-kInf, kNan}}) {
        const Drawn drawn = draw(v.device, none, 2, options);
        EXPECT_EQ(drawn.ids, (std::vector<std::uint32_t>{0, 0})) << v.name;
        EXPECT_EQ(drawn.logprobs, (std::vector<float>{-kInf, -kInf})) << v.name;
      }
    }
  }
}

/// Ties at every filter's end and at the token drawn, ranks on both sides of zero, chunks of one token and of none beyond.
TEST(Sample, every_device_draws_the_same_token) {
  Random random(46);
  SCOPED_TRACE(random.trace());
  const std::vector<std::int64_t> recent = {1, 1, 5, 900, 4096, 4096, 4096, 9000, -7};
  for (const std::size_t vocab : {1, 2, 31, 257, 4095, 4096, 4097, 9001}) {
    std::vector<float> logits = random.uniform(vocab, -6, 9), coarse = logits;
    for (float& v : coarse) v = std::round(v);
    const std::vector<float> flat(vocab, -2.5f);
    for (const std::vector<float>& x : {logits, coarse, flat}) {
      check_same_tokens(x, {.seed = vocab});
      check_same_tokens(x, {.temperature = 0.3f, .min_p = 0.01f, .seed = vocab}, recent);
      check_same_tokens(x, {.temperature = 3, .top_k = static_cast<std::int64_t>(vocab / 3 + 1), .seed = vocab});
      check_same_tokens(x, {.temperature = 0.9f, .top_p = 0.6f, .seed = vocab});
      check_same_tokens(x, {.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 1.2f,
                            .frequency_penalty = 0.3f, .presence_penalty = 0.1f, .seed = vocab}, recent);
      if (HasFatalFailure()) return;
    }
  }
  // Candidates beyond the last bin: fewer than top_k within 31.75 of the greatest.
  std::vector<float> steep(300);
  for (std::size_t i = 0; i < steep.size(); ++i) steep[i] = -static_cast<float>((i * 7) % 300);
  check_same_tokens(steep, {.temperature = 50, .top_k = 100}, {}, 8);
  check_same_tokens(steep, {.temperature = 50, .top_p = 0.999999f}, {}, 8);
  check_same_tokens(steep, {.temperature = 0, .repetition_penalty = 2}, {0, 43, 86});
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
    check_same_tokens(logits, other);
  }
}

/// Computed once from the definition; a change means that recorded seeds no longer reproduce.
TEST(Sample, tokens_of_a_seed_stay_what_they_are) {
  const std::vector<float> logits(1000, 0.0f);
  for (const int step : {0, 1, 1000}) {
    const double u = static_cast<double>(ops::philox_fraction(42, static_cast<std::uint64_t>(step), 0)) * 0x1p-64;
    for (const Variant& v : families()) {
      EXPECT_EQ(draw(v.device, logits, 1, {.seed = 42}, step).ids[0], static_cast<std::uint32_t>(u * 1000)) << v.name;
    }
  }
}

TEST(Sample, large_vocabulary) {
  Random random(44);
  std::vector<float> logits = random.uniform(150001, -10, 10);
  check_distribution({logits.begin(), logits.begin() + 1500}, {.temperature = 0.9f, .top_p = 0.98f});
  for (const SampleOptions& options : {SampleOptions{}, SampleOptions{.top_k = 40}, SampleOptions{.top_k = 150000},
                                       SampleOptions{.top_p = 0.99f}, SampleOptions{.temperature = 0.7f, .min_p = 0.05f}}) {
    check_same_tokens(logits, options, {}, 1);
    const std::vector<double> p = reference::sample(logits, options);
    const Drawn drawn = draw(cpu(2), logits, 3, options);
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_GT(p[drawn.ids[i]], 0);
      EXPECT_NEAR(drawn.logprobs[i], std::log(p[drawn.ids[i]]), 1e-4);
    }
  }
}

TEST(Sample, graph_binds_the_step_anew) {
  Random random(45);
  const std::vector<float> logits = random.uniform(64, -1, 1);
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    const Tensor x = must(v.device.allocate(DType::f32, {64})), ids = must(v.device.allocate(DType::u32, {1}));
    must(v.device.upload(x, std::as_bytes(std::span(logits))));
    for (const std::int64_t k : {0, 20}) {
      const SampleOptions options{.top_k = k, .seed = 3};
      Graph graph = must(Graph::record(v.device, [&](CommandEncoder& e) -> Result<void> {
        MLXN_TRY(const Scalar<std::int64_t> step, e.parameter("step", 0));
        return sample(e, x, ids, options, step);
      }));
      for (const std::int64_t step : {INT64_C(0), INT64_C(1), INT64_C(2), INT64_C(50), INT64_C(1) << 40}) {
        must(graph.set("step", step));
        must(graph.replay_and_wait());
        EXPECT_EQ(id_in(v.device, ids), draw(cpu(2), logits, 1, options, step).ids[0]) << "step " << step;
      }
    }
  }
}

TEST(Sample, graph_takes_counts_inside_the_window) {
  const std::vector<float> logits = {4, 3, 2, 1};
  const std::vector<std::int32_t> used = {0, 1};
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    const Device& device = v.device;
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
      EXPECT_EQ(id_in(device, ids), count);
    }
    EXPECT_TRUE(fails_with(graph.set("count", 3), ErrorCode::out_of_range, {"count", "3"}));
    EXPECT_TRUE(fails_with(graph.set("count", -1), ErrorCode::out_of_range, {}));
  }
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
}  // namespace mlxn::test::sample_suite
