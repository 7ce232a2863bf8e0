#include "ops/gelu_mul/gelu_mul.h"

#include "tests/conformance/elementwise.h"
#include "tests/reference/gelu_mul.h"

namespace mlxn::test::gelu_mul_suite {
namespace {

const ElementwiseOp kOp = {
    .name = "gelu_mul",
    .encode = [](CommandEncoder& e, const Tensor& a, const Tensor& b, const Tensor& y,
                 std::optional<CpuIsa> isa) { return isa ? ops::encode_gelu_mul(e, a, b, y, isa) : gelu_mul(e, a, b, y); },
    .reference = reference::gelu_mul,
    .terms = 8,
    .row_b = false,
    .a_name = "g",
    .b_name = "u",
};

MLXN_ELEMENTWISE_SUITE(GeluMul, kOp)

}  // namespace
}  // namespace mlxn::test::gelu_mul_suite
