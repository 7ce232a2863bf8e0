#include "ops/silu_mul/silu_mul.h"

#include "tests/conformance/elementwise.h"
#include "tests/reference/silu_mul.h"

namespace mlxn::test::silu_mul_suite {
namespace {

const ElementwiseOp kOp = {
    .name = "silu_mul",
    .encode = [](CommandEncoder& e, const Tensor& a, const Tensor& b, const Tensor& y,
                 std::optional<CpuIsa> isa) { return isa ? ops::encode_silu_mul(e, a, b, y, isa) : silu_mul(e, a, b, y); },
    .reference = reference::silu_mul,
    .terms = 8,
    .row_b = false,
    .a_name = "g",
    .b_name = "u",
};

MLXN_ELEMENTWISE_SUITE(SiluMul, kOp)

}  // namespace
}  // namespace mlxn::test::silu_mul_suite
