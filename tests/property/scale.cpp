#include "mlxn/ops/scale.h"

#include "tests/property/elementwise_property.h"

namespace mlxn::test::scale_suite {
namespace {

Binary by(float factor) {
  return [factor](CommandEncoder& e, const Tensor& x, const Tensor&, const Tensor& y) { return scale(e, x, y, factor); };
}

TEST(ScaleProperty, elements_are_independent) {
  for (const DType type : kFloats) check_suffixes(by(0.3f), type);
}

TEST(ScaleProperty, powers_of_two_undo_each_other) {
  Random random(65);
  const std::vector<float> x = rounded(DType::f16, random.uniform(500, -9, 9)), none(500);
  for (const DType type : {DType::f32, DType::f16}) {
    EXPECT_EQ(apply(by(0.125f), apply(by(8.0f), x, none, type), none, type), x);
  }
}

}  // namespace
}  // namespace mlxn::test::scale_suite
