#include "mlxn/ops/rms_norm.h"

#include "tests/conformance/variants.h"

namespace mlxn::test::rms_norm_suite {
namespace {

std::vector<float> norm(DType type, std::int64_t rows, const std::vector<float>& x, const std::vector<float>& w,
                        float eps) {
  const std::int64_t dim = static_cast<std::int64_t>(x.size()) / rows;
  Guarded gx(cpu(2), type, {rows, dim}), gw(cpu(2), DType::f32, {dim}), gy(cpu(2), type, {rows, dim});
  write(gx, type, x);
  if (!w.empty()) write(gw, DType::f32, w);
  const Tensor weight = w.empty() ? Tensor() : gw.tensor();
  must(run(cpu(2), [&](CommandEncoder& e) { return rms_norm(e, gx.tensor(), weight, gy.tensor(), eps); }));
  return gy.read();
}

TEST(RmsNormProperty, a_row_equals_itself_in_any_batch) {
  Random random(51);
  for (const DType type : kFloats) {
    const std::vector<float> x = random.uniform(7 * 101, -2, 2), w = random.uniform(101, -1, 1);
    const std::vector<float> all = norm(type, 7, x, w, 1e-6f);
    EXPECT_EQ(norm(type, 7, x, w, 1e-6f), all) << "twice equals once";
    for (std::ptrdiff_t r = 0; r < 7; ++r) {
      const std::vector<float> alone = norm(type, 1, {x.begin() + r * 101, x.begin() + (r + 1) * 101}, w, 1e-6f);
      EXPECT_EQ(alone, std::vector<float>(all.begin() + r * 101, all.begin() + (r + 1) * 101));
    }
  }
}

TEST(RmsNormProperty, the_weight_is_a_product_afterwards) {
  Random random(52);
  const std::vector<float> x = random.uniform(3 * 77, -2, 2), w = random.uniform(77, -1, 1);
  std::vector<float> composed = norm(DType::f32, 3, x, {}, 1e-6f);
  for (std::size_t i = 0; i < composed.size(); ++i) composed[i] *= w[i % 77];
  EXPECT_EQ(norm(DType::f32, 3, x, w, 1e-6f), composed);
}

TEST(RmsNormProperty, powers_of_two_cancel) {
  Random random(53);
  std::vector<float> x = random.uniform(2 * 50, -2, 2);
  const std::vector<float> once = norm(DType::f32, 2, x, {}, 1e-6f);
  for (float& v : x) v *= 4;
  EXPECT_EQ(norm(DType::f32, 2, x, {}, 16e-6f), once);
}

}  // namespace
}  // namespace mlxn::test::rms_norm_suite
