#include "ops/add/add.h"

#include "tests/conformance/elementwise.h"
#include "tests/reference/add.h"

namespace mlxn::test::add_suite {
namespace {

const ElementwiseOp kOp = {
    .name = "add",
    .encode = [](CommandEncoder& e, const Tensor& a, const Tensor& b, const Tensor& y,
                 std::optional<CpuIsa> isa) { return isa ? ops::encode_add(e, a, b, y, isa) : add(e, a, b, y); },
    .reference = reference::add,
    .terms = 1,
    .row_b = true,
    .a_name = "a",
    .b_name = "b",
};

MLXN_ELEMENTWISE_SUITE(Add, kOp)

}  // namespace
}  // namespace mlxn::test::add_suite
