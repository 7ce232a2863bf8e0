#include "ops/softmax/softmax.h"

#include <cmath>
#include <limits>

#include "tests/conformance/variants.h"
#include "tests/reference/softmax.h"

namespace mlxn::test::softmax_suite {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void check(DType type, std::int64_t rows, std::int64_t cols, const std::vector<float>& values, bool in_place) {
  const std::vector<float> x = rounded(type, values);
  SameInFamily<std::vector<std::byte>> same_isa;  // the contract leaves sums to the instruction set, not to the threads
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name + " " + std::string(to_string(type)) + " [" + std::to_string(rows) + ", " + std::to_string(cols) + "]");
    Guarded gx(v.device, type, {rows, cols}, {rows % 3, block_bytes(type)});
    Guarded gy(v.device, type, {rows, cols}, {5, 0});
    write(gx, type, x);
    const Guarded& out = in_place ? gx : gy;
    must(run(v.device, [&](CommandEncoder& e) { return ops::encode_softmax(e, gx.tensor(), out.tensor(), v.isa); }));
    EXPECT_TRUE(out.intact());
    if (!in_place) {
      EXPECT_TRUE(gx.unchanged());
    }
    Variant by_isa = v;
    if (v.isa) by_isa.family = std::string(to_string(*v.isa));
    ASSERT_TRUE(same_isa(by_isa, out.read_bytes()));
    const std::vector<float> y = out.read();
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto wanted = reference::softmax_row(std::span(x).subspan(static_cast<std::size_t>(r * cols), static_cast<std::size_t>(cols)));
      // An exponential of two units and its argument's rounding, a sum of at most cols / 4 terms a lane (on a GPU cols / 32 and
      // ten more, of which those of zeros are exact), quotient, product.
      const Tolerance tolerance{.out = type, .terms = 8 + static_cast<double>(cols) / 4};
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_TRUE(is_near(y[static_cast<std::size_t>(r * cols) + i], wanted[i], tolerance)) << "row " << r << " element " << i;
      }
    }
  }
}

TEST(Softmax, sizes_and_types) {
  Random random(81);
  SCOPED_TRACE(random.trace());
  for (const DType type : kFloats) {
    for (const std::int64_t cols : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 1021}) {
      for (const std::int64_t rows : {1, 2, 7}) {
        check(type, rows, cols, random.uniform(static_cast<std::size_t>(rows * cols), -4, 4), rows == 2);
        if (HasFatalFailure()) return;
      }
    }
  }
  for (const DType type : kFloats) {  // what a GPU keeps in registers, and what it does not
    for (const std::int64_t cols : {255, 256, 257, 511, 4096, 4097}) {
      check(type, 1, cols, random.uniform(static_cast<std::size_t>(cols), -4, 4), cols == 4097);
      if (HasFatalFailure()) return;
    }
  }
  check(DType::f32, 1, 100003, random.uniform(100003, -8, 8), false);
  check(DType::bf16, 900, 12, random.uniform(10800, -8, 8), true);
}

TEST(Softmax, large_and_small_logits) {
  Random random(82);
  SCOPED_TRACE(random.trace());
  check(DType::f32, 2, 4, {1000, -1000, 999, 0, -1000, -1001, -1000, -5000}, false);
  check(DType::f32, 1, 8, std::vector<float>(8, 2.5f), false);
  check(DType::f32, 1, 3, {3e38f, -3e38f, 3e38f}, false);
  check(DType::f32, 3, 50, random.uniform(150, -90, 90), false);
  check(DType::f16, 3, 50, random.uniform(150, -60000, 60000), false);
  check(DType::f16, 1, 4, {0, -9, -16, -17.5f}, false);  // subnormal results
}

TEST(Softmax, masks_infinities_and_nan) {
  for (const std::int64_t cols : {3, 16, 37, 300, 5000}) {
    std::vector<float> x(static_cast<std::size_t>(6 * cols), 0.5f);
    const auto row = [&](std::int64_t r) { return x.begin() + r * cols; };
    std::fill(row(0), row(1), -kInf);           // masked throughout: zeros
    std::fill(row(1), row(2) - 1, -kInf);       // one left: exactly 1
    *row(2) = kNan;
    *row(3) = kInf;
    std::fill(row(4), row(5), -kInf);
    *(row(5) - 1) = kNan;
    for (const DType type : kFloats) check(type, 6, cols, x, cols == 16);
  }
}

TEST(Softmax, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor x = make(DType::f16, {4, 8}), y = make(DType::f16, {4, 8});
  const auto attempt = [&](const Tensor& in, const Tensor& out) {
    CommandEncoder encoder = must(device.encoder());
    return softmax(encoder, in, out);
  };
  EXPECT_TRUE(attempt(x, y).has_value());
  EXPECT_TRUE(attempt(x, x).has_value());
  EXPECT_TRUE(attempt(must(x.slice(0, 0, 0)), must(y.slice(0, 0, 0))).has_value()) << "no rows";
  EXPECT_TRUE(fails_with(attempt({}, y), ErrorCode::invalid_argument, {"softmax", "x", "empty"}));
  EXPECT_TRUE(fails_with(attempt(x, {}), ErrorCode::invalid_argument, {"softmax", "y", "empty"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::i32, {4, 8}), y), ErrorCode::bad_dtype, {"softmax", "x is i32"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::f32, {4, 8})), ErrorCode::bad_dtype, {"softmax", "y is f32", "f16"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::f16, {8}), y), ErrorCode::bad_shape, {"x is [8]"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::f16, {4, 9})), ErrorCode::bad_shape, {"y is [4, 9]", "[4, 8]"}));
  EXPECT_TRUE(fails_with(attempt(must(x.slice(1, 0, 0)), must(y.slice(1, 0, 0))), ErrorCode::bad_shape, {"x is [4, 0]"}));
  EXPECT_TRUE(fails_with(attempt(must(make(DType::f16, {8, 4}).permute({1, 0})), y), ErrorCode::bad_shape, {"x", "stride 4"}));
  const Tensor wide = make(DType::f16, {5, 8});
  EXPECT_TRUE(fails_with(attempt(must(wide.slice(0, 0, 4)), must(wide.slice(0, 1, 5))), ErrorCode::aliased, {"y overlaps x"}));
  EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::f16, {4, 8})), y), ErrorCode::wrong_device, {"softmax", "x"}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.commit_and_wait());
  EXPECT_TRUE(fails_with(softmax(encoder, x, y), ErrorCode::wrong_state, {"softmax"}));
}

}  // namespace
}  // namespace mlxn::test::softmax_suite
