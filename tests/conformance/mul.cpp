#include "ops/mul/mul.h"

#include "tests/conformance/elementwise.h"
#include "tests/reference/mul.h"

namespace mlxn::test::mul_suite {
namespace {

const ElementwiseOp kOp = {
    .name = "mul",
    .encode = [](CommandEncoder& e, const Tensor& a, const Tensor& b, const Tensor& y,
                 std::optional<CpuIsa> isa) { return isa ? ops::encode_mul(e, a, b, y, isa) : mul(e, a, b, y); },
    .reference = reference::mul,
    .terms = 1,
    .row_b = true,
    .a_name = "a",
    .b_name = "b",
};

MLXN_ELEMENTWISE_SUITE(Mul, kOp)

}  // namespace
}  // namespace mlxn::test::mul_suite
