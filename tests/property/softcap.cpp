#include "mlxn/ops/softcap.h"

#include <algorithm>

#include "tests/property/elementwise_property.h"

namespace mlxn::test::softcap_suite {
namespace {

Binary by(float cap) {
  return [cap](CommandEncoder& e, const Tensor& x, const Tensor&, const Tensor& y) { return softcap(e, x, y, cap); };
}

TEST(SoftcapProperty, elements_are_independent) {
  for (const DType type : kFloats) check_suffixes(by(30.0f), type);
}

TEST(SoftcapProperty, stays_below_cap_keeps_signs_and_order) {
  Random random(66);
  std::vector<float> x = random.uniform(2000, -200, 200);
  std::sort(x.begin(), x.end());
  const std::vector<float> y = apply(by(30.0f), x, std::vector<float>(2000));
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(std::fabs(y[i]), 30.0f);
    EXPECT_EQ(std::signbit(y[i]), std::signbit(x[i]));
    if (i == 0) continue;
    EXPECT_GE(y[i], y[i - 1] - 30.0f * 5e-7f);
  }
}

TEST(SoftcapProperty, is_odd_and_scales_with_its_cap) {
  Random random(67);
  const std::vector<float> x = random.uniform(1000, -100, 100), none(1000);
  std::vector<float> negative = x, doubled = x;
  for (float& v : negative) v = -v;
  for (float& v : doubled) v *= 2;
  const std::vector<float> y = apply(by(25.0f), x, none), minus = apply(by(25.0f), negative, none);
  const std::vector<float> twice = apply(by(50.0f), doubled, none);
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(minus[i], -y[i]);
    EXPECT_EQ(twice[i], 2 * y[i]);
  }
}

}  // namespace
}  // namespace mlxn::test::softcap_suite
