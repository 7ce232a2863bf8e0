#include "ops/rope/rope.h"

#include <cmath>
#include <limits>

#include "ops/rope/angle.h"
#include "tests/conformance/variants.h"
#include "tests/reference/rope.h"

namespace mlxn::test::rope_suite {
namespace {

std::vector<std::byte> position_bytes(const std::vector<std::int32_t>& positions) {
  const auto bytes = std::as_bytes(std::span(positions));
  return {bytes.begin(), bytes.end()};
}

/// x [seq, heads, head_dim] through every variant, against the reference and against the first variant's bits.
void check(const RopeConfig& config, DType type, std::int64_t heads, const std::vector<std::int32_t>& positions, Random& random,
           RopeDirection direction = RopeDirection::forward) {
  const auto seq = static_cast<std::int64_t>(positions.size());
  const std::vector<float> x = rounded(type, random.uniform(static_cast<std::size_t>(seq * heads * config.head_dim), -2, 2));
  SameInFamily<std::vector<std::byte>> same;
  for (const Variant& v : variants()) {
    const RopeTable table = must(RopeTable::make(v.device, config));
    for (const bool in_place : {false, true}) {
      SCOPED_TRACE(v.name + " " + std::string(to_string(type)) + " head_dim " + std::to_string(config.head_dim) + " rotated " +
                   std::to_string(config.rotated_dims));
      Guarded gx(v.device, type, {seq, heads, config.head_dim}, {3, block_bytes(type)}), gy(v.device, type, {seq, heads, config.head_dim});
      Guarded gp(v.device, DType::i32, {seq}, {0, 4});
      write(gx, type, x);
      gp.write(position_bytes(positions));
      const Guarded& out = in_place ? gx : gy;
      must(run(v.device, [&](CommandEncoder& e) {
        return ops::encode_rope(e, gx.tensor(), gp.tensor(), table, out.tensor(), direction, v.isa);
      }));
      EXPECT_TRUE(out.intact());
      EXPECT_TRUE(gp.unchanged());
      if (!in_place) {
        EXPECT_TRUE(gx.unchanged());
      }
      const std::vector<float> y = out.read();
      const auto dim = static_cast<std::size_t>(config.head_dim);
      for (std::size_t r = 0; r < y.size() / dim; ++r) {
        const std::int32_t position = positions[r / static_cast<std::size_t>(heads)];
        const auto wanted =
            reference::rope_row(config, std::span(x).subspan(r * dim, dim), position, direction == RopeDirection::inverse);
        for (std::size_t i = 0; i < dim; ++i) {
          // Sine and cosine within 2e-7 (1e-6 for the largest angles), magnitude, two products and a sum.
          const double terms = std::fabs(static_cast<double>(position)) > 0x1p24 ? 20 : 6;
          ASSERT_TRUE(is_near(y[r * dim + i], wanted[i], {.out = type, .terms = terms})) << "row " << r << " element " << i;
        }
      }
      ASSERT_TRUE(same(v, out.read_bytes()));
    }
  }
}

RopeConfig config_of(std::int64_t head_dim, RopePairing pairing, std::int64_t rotated = 0) {
  RopeConfig config;
  config.head_dim = head_dim;
  config.rotated_dims = rotated;
  config.pairing = pairing;
  return config;
}

TEST(Rope, dimensions_and_types) {
  Random random(101);
  SCOPED_TRACE(random.trace());
  for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
    for (const DType type : kFloats) {
      for (const std::int64_t dim : {2, 4, 6, 8, 10, 14, 16, 18, 30, 34, 64, 80, 126, 128, 130, 256, 512}) {
        check(config_of(dim, pairing), type, 3, {0, 1, 42, 2048}, random);
        if (HasFatalFailure()) return;
      }
      for (const std::int64_t dim : {7, 9, 16, 40, 129}) {
        for (const std::int64_t rotated : {2, 4, 6}) check(config_of(dim, pairing, rotated), type, 2, {5, 300}, random);
        if (HasFatalFailure()) return;
      }
    }
  }
  check(config_of(64, RopePairing::halves), DType::f32, 32, {17}, random);
  check(config_of(64, RopePairing::adjacent), DType::f32, 1, std::vector<std::int32_t>(50, 3), random);
}

TEST(Rope, long_and_negative_positions) {
  Random random(102);
  SCOPED_TRACE(random.trace());
  const std::vector<std::int32_t> positions = {4096, 131071, 1000000, 16777215, std::numeric_limits<std::int32_t>::max(), -1, -70000,
                                               std::numeric_limits<std::int32_t>::min()};
  for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
    RopeConfig config = config_of(64, pairing);
    check(config, DType::f32, 2, positions, random);
    config.base = 1e6;
    check(config, DType::f32, 2, positions, random);
    check(config, DType::f32, 2, positions, random, RopeDirection::inverse);
  }
}

TEST(Rope, proportional_rule_denominator_and_factors) {
  Random random(103);
  SCOPED_TRACE(random.trace());
  RopeConfig proportional = config_of(64, RopePairing::halves, 16);
  proportional.split_offset = 32;
  proportional.frequency_denominator = 64;
  check(proportional, DType::f32, 2, {0, 9, 500}, random);
  std::vector<float> factors(32, 1.0f);
  for (std::size_t i = 16; i < 32; ++i) factors[i] = 1e30f;  // pairs that do not turn
  for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
    RopeConfig config = config_of(64, pairing);
    config.frequency_factors = factors;
    check(config, DType::bf16, 2, {0, 9, 500}, random);
    factors[3] = 2.5f;
    check(config, DType::f32, 2, {0, 9, 500}, random);
  }
}

TEST(Rope, scalings) {
  Random random(104);
  SCOPED_TRACE(random.trace());
  std::vector<RopeScaling> scalings = {RopeLinear{4}, RopeLinear{0.5}, RopeLlama3{}, RopeLlama3{32, 1, 4, 8192},
                                       RopeYarn{.factor = 4, .original_context = 4096},
                                       RopeYarn{.factor = 32, .original_context = 4096, .attn_factor = 1.3},
                                       RopeYarn{.factor = 8, .original_context = 2048, .ext_factor = 0},
                                       RopeYarn{.factor = 8, .original_context = 32768, .ext_factor = 0.5, .beta_fast = 16, .beta_slow = 2}};
  for (const RopeScaling& scaling : scalings) {
    for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
      RopeConfig config = config_of(128, pairing);
      config.base = 500000;
      config.scaling = scaling;
      check(config, DType::f32, 2, {0, 3, 5000, 131072}, random);
      check(config, DType::f32, 2, {77}, random, RopeDirection::inverse);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Rope, frequencies_of_known_models) {
  // Llama 3.1 8B: pair 0 as it was, the slowest pair eight times slower; YaRN of factor 4: the magnitude of the paper.
  RopeConfig config = config_of(128, RopePairing::adjacent);
  config.base = 500000;
  config.scaling = RopeLlama3{};
  const RopeTable llama = must(RopeTable::make(cpu(1), config));
  const auto f = must(llama.inv_freq().read<float>());
  ASSERT_EQ(f.size(), 64u);
  EXPECT_EQ(f[0], 1.0f);
  EXPECT_FLOAT_EQ(f[63], static_cast<float>(std::pow(500000.0, -126.0 / 128) / 8));
  EXPECT_EQ(llama.magnitude(), 1.0f);
  config.scaling = RopeYarn{.factor = 4, .original_context = 32768};
  EXPECT_FLOAT_EQ(must(RopeTable::make(cpu(1), config)).magnitude(), 1.1386294f);
  config.magnitude = 2;
  EXPECT_FLOAT_EQ(must(RopeTable::make(cpu(1), config)).magnitude(), 2 * 1.1386294f);
  config.scaling = {};
  EXPECT_EQ(must(RopeTable::make(cpu(1), config)).magnitude(), 2.0f);
}

TEST(Rope, heads_inside_a_fused_row) {
  Random random(105);
  const RopeConfig config = config_of(8, RopePairing::halves);
  const std::vector<float> values = random.uniform(3 * 6 * 8, -1, 1);
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name);
    const RopeTable table = must(RopeTable::make(v.device, config));
    Guarded x(v.device, DType::f32, {3, 6, 8}), y(v.device, DType::f32, {2, 3, 8}), positions(v.device, DType::i32, {3});
    write(x, DType::f32, values);
    positions.write(position_bytes({7, 8, 9}));
    must(run(v.device, [&](CommandEncoder& e) {  // heads 1 and 2, to head-major
      return ops::encode_rope(e, must(x.tensor().slice(1, 1, 3)), positions.tensor(), table, must(y.tensor().permute({1, 0, 2})),
                              RopeDirection::forward, v.isa);
    }));
    EXPECT_TRUE(y.intact());
    const std::vector<float> got = y.read();
    for (std::size_t h = 0; h < 2; ++h) {
      for (std::size_t t = 0; t < 3; ++t) {
        const auto wanted = reference::rope_row(config, std::span(values).subspan((t * 6 + h + 1) * 8, 8), static_cast<std::int32_t>(7 + t), false);
        for (std::size_t i = 0; i < 8; ++i) EXPECT_TRUE(is_near(got[(h * 3 + t) * 8 + i], wanted[i], {.terms = 6}));
      }
    }
  }
}

/// The GPUs' reduction of angles, which are exact in a long double's 64 bits where it has them: every size of frequency and
/// position.
TEST(Rope, sine_and_cosine_of_any_angle) {
  if (std::numeric_limits<long double>::digits < 64) GTEST_SKIP() << "long double is no more than a double here";
  Random random(107);
  SCOPED_TRACE(random.trace());
  const auto check_angle = [](std::int32_t position, float frequency) {
    const gpu::SineCosine got = gpu::sine_cosine(position, frequency);
    const long double angle = static_cast<long double>(position) * static_cast<long double>(frequency);
    ASSERT_NEAR(static_cast<double>(got.sine - std::sin(angle)), 0, 1.2e-7) << position << " times " << frequency;
    ASSERT_NEAR(static_cast<double>(got.cosine - std::cos(angle)), 0, 1.2e-7) << position << " times " << frequency;
  };
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max(), kLeast = std::numeric_limits<std::int32_t>::min();
  for (const std::int32_t position : {0, 1, -1, 2, 355, 16777217, kMost, kLeast}) {
    for (const float frequency : {0.0f, 1e-45f, 1e-38f, 1e-20f, 1e-7f, 0.5f, 0x1.fffffep-1f, 1.0f, 3.1415927f, 65536.0f}) {
      check_angle(position, frequency);
      check_angle(position, -frequency);
    }
  }
  const std::vector<float> exponents = random.uniform(20000, -40, 16);
  for (const float exponent : exponents) {
    const auto bits = static_cast<std::uint32_t>(random.below(std::uint64_t{1} << 32));
    check_angle(static_cast<std::int32_t>(bits) >> (bits % 31), std::exp2(exponent));
    if (HasFatalFailure()) return;
  }
}

TEST(Rope, nothing_rotates) {
  // frequency of zero pairs: a copy.
  RopeConfig config = config_of(6, RopePairing::halves, 6);
  config.scaling = RopeLinear{1e30};
  Random random(106);
  check(config, DType::f16, 2, {1, 2}, random);
}

TEST(Rope, table_errors) {
  const auto attempt = [](auto change) {
    RopeConfig config = config_of(64, RopePairing::halves, 32);
    change(config);
    return RopeTable::make(cpu(1), config);
  };
  EXPECT_TRUE(attempt([](RopeConfig&) {}).has_value());
  EXPECT_TRUE(fails_with(RopeTable::make({}, config_of(8, RopePairing::halves)), ErrorCode::invalid_argument, {"rope", "device"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.head_dim = 0; }), ErrorCode::bad_shape, {"head_dim is 0"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.rotated_dims = 31; }), ErrorCode::bad_shape, {"rotated_dims is 31", "64"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.rotated_dims = 66; }), ErrorCode::bad_shape, {"rotated_dims is 66"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.rotated_dims = -2; }), ErrorCode::bad_shape, {"rotated_dims is -2"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.split_offset = 8; }), ErrorCode::bad_shape, {"split_offset is 8", "16 to 48"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.split_offset = 49; }), ErrorCode::bad_shape, {"split_offset is 49"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.frequency_denominator = -1; }), ErrorCode::invalid_argument, {"frequency_denominator"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.base = 0; }), ErrorCode::invalid_argument, {"base is 0"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.base = std::nan(""); }), ErrorCode::invalid_argument, {"base"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.base = 1e-30; }), ErrorCode::invalid_argument, {"frequency of pair"}));
  static const std::vector<float> few(3, 1.0f), zero(16, 0.0f);
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.frequency_factors = few; }), ErrorCode::bad_shape, {"3 frequency factors", "16"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.frequency_factors = zero; }), ErrorCode::invalid_argument, {"frequency factor 0 is 0"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.scaling = RopeLinear{0}; }), ErrorCode::invalid_argument, {"factor is 0"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.scaling = RopeYarn{}; }), ErrorCode::invalid_argument, {"original_context is 0"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.scaling = RopeYarn{.factor = 2, .original_context = 8, .beta_slow = -1}; }),
                         ErrorCode::invalid_argument, {"beta_slow is -1"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.scaling = RopeLlama3{8, 4, 4, 8192}; }), ErrorCode::invalid_argument, {"high is 4"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.pairing = static_cast<RopePairing>(2); }), ErrorCode::invalid_argument, {"pairing is 2"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.magnitude = 0; }), ErrorCode::invalid_argument, {"magnitude is 0"}));
  EXPECT_TRUE(fails_with(attempt([](auto& c) { c.magnitude = std::nan(""); }), ErrorCode::invalid_argument, {"magnitude"}));
}

TEST(Rope, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const RopeTable table = must(RopeTable::make(device, config_of(8, RopePairing::halves)));
  const Tensor x = make(DType::f32, {3, 2, 8}), y = make(DType::f32, {3, 2, 8}), p = make(DType::i32, {3});
  const auto attempt = [&](const Tensor& in, const Tensor& positions, const RopeTable& t, const Tensor& out) {
    CommandEncoder encoder = must(device.encoder());
    return rope(encoder, in, positions, t, out);
  };
  EXPECT_TRUE(attempt(x, p, table, y).has_value());
  EXPECT_TRUE(attempt(x, p, table, x).has_value());
  EXPECT_TRUE(attempt(must(x.slice(0, 0, 0)), must(p.slice(0, 0, 0)), table, must(y.slice(0, 0, 0))).has_value()) << "no rows";
  EXPECT_TRUE(fails_with(attempt(x, p, {}, y), ErrorCode::invalid_argument, {"rope", "table"}));
  CommandEncoder sideways = must(device.encoder());
  EXPECT_TRUE(fails_with(rope(sideways, x, p, table, y, static_cast<RopeDirection>(2)), ErrorCode::invalid_argument, {"direction is 2"}));
  EXPECT_TRUE(fails_with(attempt({}, p, table, y), ErrorCode::invalid_argument, {"rope", "x", "empty"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::i32, {3, 2, 8}), p, table, y), ErrorCode::bad_dtype, {"rope", "x is i32"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::f32, {3}), table, y), ErrorCode::bad_dtype, {"positions is f32", "i32"}));
  EXPECT_TRUE(fails_with(attempt(x, p, table, make(DType::f16, {3, 2, 8})), ErrorCode::bad_dtype, {"y is f16"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::f32, {3, 2, 6}), p, table, y), ErrorCode::bad_shape, {"x is [3, 2, 6]", "8"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::f32, {3, 8}), p, table, y), ErrorCode::bad_shape, {"x is [3, 8]"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::i32, {2}), table, y), ErrorCode::bad_shape, {"positions is [2]", "[3]"}));
  EXPECT_TRUE(fails_with(attempt(x, p, table, make(DType::f32, {3, 1, 8})), ErrorCode::bad_shape, {"y is [3, 1, 8]"}));
  EXPECT_TRUE(fails_with(attempt(must(make(DType::f32, {3, 8, 2}).permute({0, 2, 1})), p, table, y), ErrorCode::bad_shape, {"x", "stride"}));
  const Tensor more = make(DType::f32, {4, 2, 8});
  EXPECT_TRUE(fails_with(attempt(must(more.slice(0, 0, 3)), p, table, must(more.slice(0, 1, 4))), ErrorCode::aliased, {"y overlaps x"}));
  EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::f32, {3, 2, 8})), p, table, y), ErrorCode::wrong_device, {"rope", "x"}));
  const RopeTable foreign = must(RopeTable::make(cpu(1), config_of(8, RopePairing::halves)));
  EXPECT_TRUE(fails_with(attempt(x, p, foreign, y), ErrorCode::wrong_device, {"rope", "table"}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.commit_and_wait());
  EXPECT_TRUE(fails_with(rope(encoder, x, p, table, y), ErrorCode::wrong_state, {"rope"}));
}

}  // namespace
}  // namespace mlxn::test::rope_suite
