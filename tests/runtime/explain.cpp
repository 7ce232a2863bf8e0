// What the program says of its choices agrees with what is chosen.
#include <algorithm>

#include "gtest/gtest.h"
#include "ops/matmul/matmul.h"
#include "ops/op_table.h"
#include "tests/support/must.h"

namespace mlxn::explain_suite {
namespace {

using test::must;

TEST(Explain, AVariantRunsHereIfNothingIsLacking) {
  std::size_t rows = 0;
  for (const ops::OpInfo* op : ops::op_table()) {
    for (const ops::VariantInfo& variant : op->variants) {
      EXPECT_EQ(variant.available(), variant.lacks().empty()) << variant.name << ": " << variant.lacks();
      ++rows;
    }
  }
  EXPECT_GT(rows, 10u);
}

bool any_says(const std::vector<std::string>& lines, std::string_view text) {
  return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

TEST(Explain, TheThresholdsAreThoseOfThePlan) {
  const Device device = must(Device::open("cpu", {.threads = 2}));
  for (const DType type : {DType::q4_0, DType::q6_K, DType::f16}) {
    for (const Numerics numerics : {Numerics::exact, Numerics::int8act}) {
      MatmulOptions options;
      options.numerics = numerics;
      MatmulShape shape{1, 512, 1024, type};
      const std::int64_t last = must(matmul_vector_threshold(device, shape, true));
      const std::string from = "from m = " + std::to_string(last + 1) + " on";
      for (const std::int64_t m : {std::int64_t{1}, last, last + 1, std::int64_t{512}}) {
        shape.m = m;
        SCOPED_TRACE(std::string(to_string(type)) + ", m = " + std::to_string(m));
        const MatmulPlan plan = must(plan_matmul(device, shape, true, options));
        const auto lines = must(ops::explain_matmul(device, shape, true, options));
        EXPECT_TRUE(any_says(lines, "class " + std::string(to_string(plan.numerics))));
        EXPECT_TRUE(any_says(lines, plan.route == Route::vector ? "route vector: tiles are taken " + from : "route tile: taken " + from));
        EXPECT_EQ(any_says(lines, "has no class int8act"), plan.numerics != numerics);
      }
    }
  }
}

TEST(Explain, SaysWhatWasAskedFor) {
  const Device device = must(Device::open("cpu", {.threads = 1}));
  MatmulOptions options;
  options.route = Route::tile;
  options.numerics = Numerics::f16;
  const auto lines = must(ops::explain_matmul(device, {1, 64, 256, DType::q8_0}, false, options));
  EXPECT_TRUE(any_says(lines, "route tile: the call asks for it"));
  EXPECT_TRUE(any_says(lines, "class f16: the call asks for it"));
  EXPECT_TRUE(any_says(lines, "as they are read"));
  EXPECT_TRUE(any_says(must(ops::explain_matmul(device, {1, 64, 256, DType::q8_0}, true, {})), "prepared at load"));
  EXPECT_TRUE(test::fails_with(ops::explain_matmul(device, {1, 64, 100, DType::q8_0}, true, {}), ErrorCode::bad_shape, {"100", "32"}));
}

}  // namespace
}  // namespace mlxn::explain_suite
