#include "mlxn/ops/mul.h"

#include "tests/property/elementwise_property.h"

namespace mlxn::test::mul_suite {
namespace {

TEST(MulProperty, elements_are_independent) {
  for (const DType type : kFloats) check_suffixes(mul, type);
}

TEST(MulProperty, commutes) {
  Random random(63);
  const std::vector<float> a = random.uniform(333, -9, 9), b = random.uniform(333, -9, 9);
  for (const DType type : kFloats) EXPECT_EQ(apply(mul, a, b, type), apply(mul, b, a, type));
}

TEST(MulProperty, one_row_equals_that_row_repeated) {
  Random random(64);
  const std::vector<float> a = random.uniform(5 * 33, -9, 9), row = random.uniform(33, -9, 9);
  std::vector<float> repeated;
  for (int r = 0; r < 5; ++r) repeated.insert(repeated.end(), row.begin(), row.end());
  Guarded ga(cpu(2), DType::f32, {5, 33}), gb(cpu(2), DType::f32, {33}), gy(cpu(2), DType::f32, {5, 33});
  write(ga, DType::f32, a);
  write(gb, DType::f32, row);
  must(run(cpu(2), [&](CommandEncoder& e) { return mul(e, ga.tensor(), gb.tensor(), gy.tensor()); }));
  EXPECT_EQ(gy.read(), apply(mul, a, repeated));
}

}  // namespace
}  // namespace mlxn::test::mul_suite
