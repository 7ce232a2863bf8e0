#include "ops/rms_norm/rms_norm.h"

#include "tests/conformance/variants.h"
#include "tests/reference/rms_norm.h"

namespace mlxn::test::rms_norm_suite {
namespace {

struct Case {
  std::int64_t rows, dim;
  DType type = DType::f32, w_type = DType::f32;
  bool weighted = true;
  float eps = 1e-6f;
  float low = -3, high = 3;
};

void check(const Case& c, Random& random) {
  const auto count = static_cast<std::size_t>(c.rows * c.dim);
  const std::vector<float> x = rounded(c.type, random.uniform(count, c.low, c.high));
  const std::vector<float> w =
      c.weighted ? rounded(c.w_type, random.uniform(static_cast<std::size_t>(c.dim), -2, 2)) : std::vector<float>();
  SameInFamily<std::vector<std::byte>> same;
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name + " " + std::string(to_string(c.type)) + " [" + std::to_string(c.rows) + ", " + std::to_string(c.dim) + "]");
    Guarded gx(v.device, c.type, {c.rows, c.dim}, {c.rows % 3, block_bytes(c.type)});
    Guarded gw(v.device, c.w_type, {c.dim});
    Guarded gy(v.device, c.type, {c.rows, c.dim}, {5, 0});
    write(gx, c.type, x);
    if (c.weighted) write(gw, c.w_type, w);
    const Tensor weight = c.weighted ? gw.tensor() : Tensor();
    must(run(v.device, [&](CommandEncoder& e) { return ops::encode_rms_norm(e, gx.tensor(), weight, gy.tensor(), c.eps, v.isa); }));
    EXPECT_TRUE(gy.intact());
    EXPECT_TRUE(gx.unchanged());
    const std::vector<float> y = gy.read();
    for (std::int64_t r = 0; r < c.rows; ++r) {
      const std::vector<float> row(x.begin() + r * c.dim, x.begin() + (r + 1) * c.dim);
      const std::vector<Reference> wanted = reference::rms_norm(row, w, c.eps);
      // Half of a sum of 32 partial sums of dim / 32 squares, then mean, root, quotient and two products.
      const double terms = 0.5 * (static_cast<double>(c.dim) / 32 + 8) + 4;
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_TRUE(is_near(y[static_cast<std::size_t>(r * c.dim) + i], wanted[i], {.out = c.type, .terms = terms}))
            << "row " << r << " element " << i;
      }
    }
    ASSERT_TRUE(same(v, gy.read_bytes()));
  }
}

TEST(RmsNorm, sizes_and_types) {
  Random random(11);
  SCOPED_TRACE(random.trace());
  for (const DType type : kFloats) {
    for (const std::int64_t dim : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1021}) {
      for (const std::int64_t rows : {1, 2, 5}) {
        check({.rows = rows, .dim = dim, .type = type, .w_type = rows == 2 ? type : DType::f32, .weighted = rows != 5},
              random);
        if (HasFatalFailure()) return;
      }
    }
  }
  check({.rows = 2, .dim = 12289}, random);
  check({.rows = 300, .dim = 64, .type = DType::bf16}, random);
}

TEST(RmsNorm, small_and_large_magnitudes) {
  Random random(12);
  check({.rows = 2, .dim = 40, .eps = 1e-12f, .low = -1e-9f, .high = 1e-9f}, random);
  check({.rows = 2, .dim = 40, .low = 1e17f, .high = 1e18f}, random);
  check({.rows = 2, .dim = 40, .eps = 9.0f}, random);
}

TEST(RmsNorm, unit_weight_gives_rows_of_rms_one) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Guarded x(v.device, DType::f32, {2, 4}), y(v.device, DType::f32, {2, 4});
    write(x, DType::f32, {1, 2, 3, 4, -10, 0, 10, 20});
    must(run(v.device, [&](CommandEncoder& e) { return rms_norm(e, x.tensor(), {}, y.tensor(), 1e-6f); }));
    const std::vector<float> got = y.read();
    for (std::size_t r = 0; r < 2; ++r) {
      double sum = 0;
      for (std::size_t i = 0; i < 4; ++i) sum += static_cast<double>(got[4 * r + i]) * got[4 * r + i];
      EXPECT_NEAR(std::sqrt(sum / 4), 1.0, 1e-5);
    }
  }
}

TEST(RmsNorm, nan_and_infinity_stay_in_their_row) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name);
    Guarded x(v.device, DType::f32, {4, 3}), y(v.device, DType::f32, {4, 3});
    write(x, DType::f32, {1, nan, 2, 3, 4, 5, inf, 1, -1, 3e38f, 1, 2});
    must(run(v.device, [&](CommandEncoder& e) { return ops::encode_rms_norm(e, x.tensor(), {}, y.tensor(), 1e-6f, v.isa); }));
    const std::vector<float> got = y.read();
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(std::isnan(got[i]));
      EXPECT_TRUE(std::isfinite(got[3 + i]));
      EXPECT_EQ(got[9 + i], 0.0f) << "a square beyond f32 makes the row zero";
    }
    EXPECT_TRUE(std::isnan(got[6]));
    EXPECT_EQ(got[7], 0.0f);
  }
}

TEST(RmsNorm, heads_of_a_fused_row) {
  // Heads 1 and 2 of [seq 3, heads 4, head_dim 8]: two strides of rows.
  Random random(13);
  const std::vector<float> values = random.uniform(96, -2, 2);
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name);
    Guarded x(v.device, DType::f32, {3, 4, 8}), y(v.device, DType::f32, {3, 2, 8});
    x.write(values);
    const Tensor heads = must(x.tensor().slice(1, 1, 3));
    must(run(v.device, [&](CommandEncoder& e) { return ops::encode_rms_norm(e, heads, {}, y.tensor(), 1e-5f, v.isa); }));
    const std::vector<float> got = y.read();
    for (std::size_t r = 0; r < 6; ++r) {
      const std::size_t begin = (r / 2 * 4 + r % 2 + 1) * 8;
      const auto wanted = reference::rms_norm({values.begin() + begin, values.begin() + begin + 8}, {}, 1e-5f);
      for (std::size_t i = 0; i < 8; ++i) EXPECT_TRUE(is_near(got[8 * r + i], wanted[i], {.terms = 9}));
    }
  }
}

TEST(RmsNorm, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor x = make(DType::f16, {4, 8}), w = make(DType::f32, {8}), y = make(DType::f16, {4, 8});
  const auto attempt = [&](const Tensor& in, const Tensor& weight, const Tensor& out, float eps = 1e-6f) {
    CommandEncoder encoder = must(device.encoder());
    return rms_norm(encoder, in, weight, out, eps);
  };
  EXPECT_TRUE(attempt(x, w, y).has_value());
  EXPECT_TRUE(attempt(x, {}, x).has_value());
  EXPECT_TRUE(fails_with(attempt({}, w, y), ErrorCode::invalid_argument, {"rms_norm", "x", "empty"}));
  EXPECT_TRUE(fails_with(attempt(x, w, {}), ErrorCode::invalid_argument, {"rms_norm", "y", "empty"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::i32, {4, 8}), w, y), ErrorCode::bad_dtype, {"rms_norm", "x", "i32"}));
  EXPECT_TRUE(
      fails_with(attempt(x, make(DType::bf16, {8}), y), ErrorCode::bad_dtype, {"rms_norm", "w", "bf16", "f32, f16"}));
  const Tensor floats32 = make(DType::f32, {4, 8});
  const Result<void> twice = attempt(floats32, make(DType::u32, {8}), floats32);
  EXPECT_TRUE(fails_with(twice, ErrorCode::bad_dtype, {"rms_norm: w is u32, wanted f32"}));
  EXPECT_EQ(twice.error().message().find("f32, f32"), std::string_view::npos) << "each type once";
  EXPECT_TRUE(fails_with(attempt(x, w, make(DType::f32, {4, 8})), ErrorCode::bad_dtype, {"rms_norm", "y", "f32", "f16"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::f32, {7}), y), ErrorCode::bad_shape, {"rms_norm", "w", "[7]", "[8]"}));
  EXPECT_TRUE(fails_with(attempt(x, w, make(DType::f16, {3, 8})), ErrorCode::bad_shape, {"rms_norm", "y", "[3, 8]"}));
  EXPECT_TRUE(
      fails_with(attempt(must(make(DType::f16, {8, 4}).permute({1, 0})), w, y), ErrorCode::bad_shape, {"x", "stride"}));
  const Tensor empty_rows = must(make(DType::f16, {4, 8}).slice(1, 3, 3));
  EXPECT_TRUE(fails_with(attempt(empty_rows, {}, empty_rows), ErrorCode::bad_shape, {"rms_norm", "x", "[4, 0]"}));
  const Tensor long_row = make(DType::f16, {64});
  EXPECT_TRUE(fails_with(attempt(must(long_row.slice(0, 0, 32)), {}, must(long_row.slice(0, 1, 33))), ErrorCode::aliased,
                         {"rms_norm", "y", "x"}));
  const Tensor floats = make(DType::f32, {8});
  EXPECT_TRUE(fails_with(attempt(make(DType::f32, {8}), floats, floats), ErrorCode::aliased, {"rms_norm", "y", "w"}));
  for (const float eps : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_TRUE(fails_with(attempt(x, w, y, eps), ErrorCode::invalid_argument, {"rms_norm", "eps"}));
  }
  EXPECT_TRUE(
      fails_with(attempt(must(cpu(1).allocate(DType::f16, {4, 8})), w, y), ErrorCode::wrong_device, {"rms_norm", "x"}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(rms_norm(closed, x, w, y, 1e-6f), ErrorCode::wrong_state, {"rms_norm"}));
  CommandEncoder open = must(device.encoder());
  EXPECT_TRUE(
      fails_with(ops::encode_rms_norm(open, x, w, y, 1e-6f, kForeignIsa), ErrorCode::unsupported, {"rms_norm", std::string(to_string(kForeignIsa))}));
  const auto none = [](const Tensor& t) { return must(t.slice(0, 1, 1)); };
  EXPECT_TRUE(attempt(none(x), w, none(y)).has_value());
}

}  // namespace
}  // namespace mlxn::test::rms_norm_suite
