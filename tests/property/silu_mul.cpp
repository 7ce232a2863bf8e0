#include "mlxn/ops/silu_mul.h"

#include "mlxn/ops/mul.h"
#include "tests/property/elementwise_property.h"

namespace mlxn::test::silu_mul_suite {
namespace {

TEST(SiluMulProperty, elements_are_independent) {
  for (const DType type : kFloats) check_suffixes(silu_mul, type);
}

TEST(SiluMulProperty, fused_equals_composed) {
  Random random(61);
  const std::vector<float> g = random.uniform(1000, -20, 20), u = random.uniform(1000, -3, 3);
  const std::vector<float> gate = apply(silu_mul, g, std::vector<float>(1000, 1.0f));
  EXPECT_EQ(apply(silu_mul, g, u), apply(mul, gate, u));
}

TEST(SiluMulProperty, gate_of_g_and_of_minus_g_differ_by_g) {
  Random random(62);
  const std::vector<float> g = random.uniform(1000, -20, 20), ones(1000, 1.0f);
  std::vector<float> negative = g;
  for (float& v : negative) v = -v;
  const std::vector<float> plus = apply(silu_mul, g, ones), minus = apply(silu_mul, negative, ones);
  for (std::size_t i = 0; i < g.size(); ++i) EXPECT_NEAR(plus[i] - minus[i], g[i], 4e-7f * std::fabs(g[i]));
}

}  // namespace
}  // namespace mlxn::test::silu_mul_suite
