#include "mlxn/ops/softmax.h"

#include "tests/conformance/variants.h"

namespace mlxn::test::softmax_suite {
namespace {

std::vector<float> softmax_of(const Device& device, DType type, std::int64_t rows, const std::vector<float>& x) {
  const Shape shape = {rows, static_cast<std::int64_t>(x.size()) / rows};
  Guarded gx(device, type, shape), gy(device, type, shape);
  write(gx, type, x);
  must(run(device, [&](CommandEncoder& e) { return softmax(e, gx.tensor(), gy.tensor()); }));
  return gy.read();
}

TEST(SoftmaxProperty, a_row_equals_itself_in_any_batch) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(151);
    SCOPED_TRACE(random.trace());
    for (const DType type : kFloats) {
      const std::vector<float> x = random.uniform(9 * 101, -5, 5);
      const std::vector<float> all = softmax_of(v.device, type, 9, x);
      EXPECT_EQ(softmax_of(v.device, type, 9, x), all) << "twice equals once";
      for (std::ptrdiff_t r = 0; r < 9; ++r) {
        EXPECT_EQ(softmax_of(v.device, type, 1, {x.begin() + r * 101, x.begin() + (r + 1) * 101}),
                  std::vector<float>(all.begin() + r * 101, all.begin() + (r + 1) * 101));
      }
    }
  }
}

TEST(SoftmaxProperty, a_shift_of_the_row_changes_nothing) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(152);
    SCOPED_TRACE(random.trace());
    std::vector<float> x(200);
    for (float& value : x) value = static_cast<float>(random.below(4096)) / 512 - 4;  // sums with the shifts are exact
    const std::vector<float> y = softmax_of(v.device, DType::f32, 4, x);
    for (const float shift : {-64.0f, 1.0f, 256.0f}) {
      std::vector<float> moved = x;
      for (float& value : moved) value += shift;
      EXPECT_EQ(softmax_of(v.device, DType::f32, 4, moved), y);
    }
  }
}

TEST(SoftmaxProperty, rows_sum_to_one_and_keep_their_order) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(153);
    SCOPED_TRACE(random.trace());
    const std::vector<float> x = random.uniform(6 * 333, -10, 10), y = softmax_of(v.device, DType::f32, 6, x);
    for (std::size_t r = 0; r < 6; ++r) {
      double sum = 0;
      for (std::size_t i = 0; i < 333; ++i) {
        sum += double{y[r * 333 + i]};
        if (i > 0) {
          EXPECT_EQ(x[r * 333 + i] > x[r * 333 + i - 1], y[r * 333 + i] > y[r * 333 + i - 1]);
        }
      }
      EXPECT_NEAR(sum, 1.0, 1e-6);
    }
  }
}

}  // namespace
}  // namespace mlxn::test::softmax_suite
