#include "ops/softcap/softcap.h"

#include "tests/conformance/elementwise.h"
#include "tests/reference/softcap.h"

namespace mlxn::test::softcap_suite {
namespace {

/// The suites' values reach to 8 and beyond: both branches of the tanh, and where it is 1.
constexpr float kCap = 3.0f;
const ElementwiseOp kOp = {
    .name = "softcap",
    .encode =
        [](CommandEncoder& e, const Tensor& x, const Tensor&, const Tensor& y, std::optional<CpuIsa> isa) {
          return isa ? ops::encode_softcap(e, x, y, kCap, isa) : softcap(e, x, y, kCap);
        },
    .reference = [](double x, double) { return reference::softcap(x, kCap); },
    .terms = 8,
    .has_b = false,
    .a_name = "x",
};

MLXN_ELEMENTWISE_SUITE(Softcap, kOp)

TEST(Softcap, cap_must_be_finite_and_above_zero) {
  const Tensor x = must(cpu(1).allocate(DType::f32, {8}));
  for (const float cap : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    CommandEncoder encoder = must(cpu(1).encoder());
    EXPECT_TRUE(fails_with(softcap(encoder, x, x, cap), ErrorCode::invalid_argument, {"softcap", "cap"}));
  }
}

}  // namespace
}  // namespace mlxn::test::softcap_suite
