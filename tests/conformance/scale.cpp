#include "ops/scale/scale.h"

#include "tests/conformance/elementwise.h"
#include "tests/reference/scale.h"

namespace mlxn::test::scale_suite {
namespace {

constexpr float kFactor = 0.1f;
const ElementwiseOp kOp = {
    .name = "scale",
    .encode =
        [](CommandEncoder& e, const Tensor& x, const Tensor&, const Tensor& y, std::optional<CpuIsa> isa) {
          return isa ? ops::encode_scale(e, x, y, kFactor, isa) : scale(e, x, y, kFactor);
        },
    .reference = [](double x, double) { return reference::scale(x, kFactor); },
    .has_b = false,
    .a_name = "x",
};

MLXN_ELEMENTWISE_SUITE(Scale, kOp)

TEST(Scale, factor_must_be_finite) {
  const Tensor x = must(cpu(1).allocate(DType::f32, {8}));
  for (const float factor : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    CommandEncoder encoder = must(cpu(1).encoder());
    EXPECT_TRUE(fails_with(scale(encoder, x, x, factor), ErrorCode::invalid_argument, {"scale", "factor"}));
  }
}

}  // namespace
}  // namespace mlxn::test::scale_suite
