#include "mlxn/ops/rope.h"

#include <cmath>

#include "tests/conformance/variants.h"

namespace mlxn::test::rope_suite {
namespace {

std::vector<float> rope_of(const Device& device, const RopeConfig& config, std::int64_t heads, const std::vector<float>& x,
                           const std::vector<std::int32_t>& positions, RopeDirection direction = RopeDirection::forward) {
  const auto seq = static_cast<std::int64_t>(positions.size());
  const RopeTable table = must(RopeTable::make(device, config));
  Guarded gx(device, DType::f32, {seq, heads, config.head_dim}), gp(device, DType::i32, {seq});
  write(gx, DType::f32, x);
  gp.write(std::as_bytes(std::span(positions)));
  must(run(device, [&](CommandEncoder& e) { return rope(e, gx.tensor(), gp.tensor(), table, gx.tensor(), direction); }));
  return gx.read();
}

RopeConfig config_of(RopePairing pairing) {
  RopeConfig config;
  config.head_dim = 40;
  config.rotated_dims = 32;
  config.pairing = pairing;
  return config;
}

TEST(RopeProperty, norms_stay) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(161);
    SCOPED_TRACE(random.trace());
    const std::vector<float> x = random.uniform(4 * 2 * 40, -2, 2);
    for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
      const std::vector<float> y = rope_of(v.device, config_of(pairing), 2, x, {0, 1, 999, 1000000});
      for (std::size_t r = 0; r < 8; ++r) {
        double before = 0, after = 0;
        for (std::size_t i = 0; i < 40; ++i) {
          before += double{x[r * 40 + i]} * double{x[r * 40 + i]};
          after += double{y[r * 40 + i]} * double{y[r * 40 + i]};
        }
        EXPECT_NEAR(after / before, 1.0, 1e-6);
      }
      for (std::size_t i = 0; i < 80; ++i) EXPECT_EQ(y[i], x[i]) << "position 0 turns nothing";
    }
  }
}

TEST(RopeProperty, inverse_undoes_forward) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(162);
    SCOPED_TRACE(random.trace());
    const std::vector<float> x = random.uniform(3 * 2 * 40, -2, 2);
    for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
      RopeConfig config = config_of(pairing);
      config.scaling = RopeYarn{.factor = 8, .original_context = 2048};
      const std::vector<float> back = rope_of(v.device, config, 2, rope_of(v.device, config, 2, x, {5, 70000, -3}), {5, 70000, -3}, RopeDirection::inverse);
      for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(back[i], x[i], 2e-6);
    }
  }
}

TEST(RopeProperty, products_depend_on_the_distance) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(163);
    SCOPED_TRACE(random.trace());
    const std::vector<float> q = random.uniform(40, -1, 1), k = random.uniform(40, -1, 1);
    const RopeConfig config = config_of(RopePairing::halves);
    const auto dot = [&](std::int32_t i, std::int32_t j) {
      const std::vector<float> a = rope_of(v.device, config, 1, q, {i}), b = rope_of(v.device, config, 1, k, {j});
      double sum = 0;
      for (std::size_t d = 0; d < 40; ++d) sum += double{a[d]} * double{b[d]};
      return sum;
    };
    for (const std::int32_t shift : {1, 100, 5000}) EXPECT_NEAR(dot(10 + shift, 3 + shift), dot(10, 3), 1e-5);
  }
}

TEST(RopeProperty, a_row_equals_itself_in_any_batch) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(164);
    SCOPED_TRACE(random.trace());
    const std::vector<float> x = random.uniform(5 * 3 * 40, -2, 2);
    const std::vector<std::int32_t> positions = {9, 3, 4000, 3, 77};
    for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves}) {
      const std::vector<float> all = rope_of(v.device, config_of(pairing), 3, x, positions);
      EXPECT_EQ(rope_of(v.device, config_of(pairing), 3, x, positions), all) << "twice equals once";
      for (std::ptrdiff_t r = 0; r < 15; ++r) {
        EXPECT_EQ(rope_of(v.device, config_of(pairing), 1, {x.begin() + r * 40, x.begin() + (r + 1) * 40}, {positions[static_cast<std::size_t>(r / 3)]}),
                  std::vector<float>(all.begin() + r * 40, all.begin() + (r + 1) * 40));
      }
    }
  }
}

}  // namespace
}  // namespace mlxn::test::rope_suite
