#include "ops/add_rms_norm/add_rms_norm.h"

#include "ops/add/add.h"
#include "ops/rms_norm/rms_norm.h"
#include "tests/conformance/variants.h"
#include "tests/reference/add_rms_norm.h"

namespace mlxn::test::add_rms_norm_suite {
namespace {

struct Case {
  std::int64_t rows, dim;
  DType type = DType::f32, w_type = DType::f32;
  bool weighted = true;
  bool aligned = false;  ///< rows begin where wide loads can read them
};

/// Against the reference, and bit for bit against the two operations that it replaces.
void check(const Case& c, Random& random) {
  const auto count = static_cast<std::size_t>(c.rows * c.dim);
  const std::vector<float> x = rounded(c.type, random.uniform(count, -3, 3)), r = rounded(c.type, random.uniform(count, -3, 3));
  const std::vector<float> w =
      c.weighted ? rounded(c.w_type, random.uniform(static_cast<std::size_t>(c.dim), -2, 2)) : std::vector<float>();
  constexpr float kEps = 1e-6f;
  SameInFamily<std::vector<std::byte>> same_sum, same_y;
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name + " " + std::string(to_string(c.type)) + " [" + std::to_string(c.rows) + ", " + std::to_string(c.dim) + "]");
    const std::int64_t gap = c.aligned ? 8 : 5, shift = c.aligned ? 0 : static_cast<std::int64_t>(block_bytes(c.type));
    Guarded gx(v.device, c.type, {c.rows, c.dim}, {c.aligned ? 0 : c.rows % 3, static_cast<std::uint64_t>(shift)});
    Guarded gr(v.device, c.type, {c.rows, c.dim}, {gap, 0}), gsum(v.device, c.type, {c.rows, c.dim}, {2 * gap, 0});
    Guarded gw(v.device, c.w_type, {c.dim}), gy(v.device, c.type, {c.rows, c.dim}, {gap, 0});
    Guarded once(v.device, c.type, {c.rows, c.dim}), then(v.device, c.type, {c.rows, c.dim});
    write(gx, c.type, x);
    write(gr, c.type, r);
    if (c.weighted) write(gw, c.w_type, w);
    const Tensor weight = c.weighted ? gw.tensor() : Tensor();
    must(run(v.device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_CHECK(ops::encode_add_rms_norm(e, gx.tensor(), gr.tensor(), weight, gsum.tensor(), gy.tensor(), kEps, v.isa));
      MLXN_CHECK(ops::encode_add(e, gx.tensor(), gr.tensor(), once.tensor(), v.isa));
      return ops::encode_rms_norm(e, once.tensor(), weight, then.tensor(), kEps, v.isa);
    }));
    EXPECT_TRUE(gsum.intact() && gy.intact());
    EXPECT_TRUE(gx.unchanged() && gr.unchanged());
    ASSERT_EQ(gsum.read_bytes(), once.read_bytes());
    ASSERT_EQ(gy.read_bytes(), then.read_bytes());
    const std::vector<float> sum = gsum.read(), y = gy.read();
    ASSERT_EQ(sum, rounded(c.type, reference::residual_sum(x, r)));
    const double terms = 0.5 * (static_cast<double>(c.dim) / 32 + 8) + 4;  // as rms_norm
    for (std::int64_t row = 0; row < c.rows; ++row) {
      const auto wanted = reference::add_rms_norm({sum.begin() + row * c.dim, sum.begin() + (row + 1) * c.dim}, w, kEps);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_TRUE(is_near(y[static_cast<std::size_t>(row * c.dim) + i], wanted[i], {.out = c.type, .terms = terms}))
            << "row " << row << " element " << i;
      }
    }
    ASSERT_TRUE(same_sum(v, gsum.read_bytes()) && same_y(v, gy.read_bytes()));
  }
}

TEST(AddRmsNorm, sizes_and_types) {
  Random random(61);
  SCOPED_TRACE(random.trace());
  for (const DType type : kFloats) {
    for (const std::int64_t dim : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 257, 1021}) {
      for (const std::int64_t rows : {1, 2, 5}) {
        check({.rows = rows, .dim = dim, .type = type, .w_type = rows == 2 ? type : DType::f32, .weighted = rows != 5}, random);
        if (HasFatalFailure()) return;
      }
    }
    check({.rows = 3, .dim = 2056, .type = type, .aligned = true}, random);
    check({.rows = 2, .dim = 64, .type = type, .aligned = true}, random);
    if (HasFatalFailure()) return;
  }
  check({.rows = 2, .dim = 12289}, random);
  check({.rows = 2, .dim = 12288, .aligned = true}, random);
  check({.rows = 300, .dim = 64, .type = DType::bf16}, random);
}

TEST(AddRmsNorm, in_place) {
  Random random(62);
  const std::vector<float> x = random.uniform(2 * 300, -2, 2), r = random.uniform(2 * 300, -2, 2), w = random.uniform(300, -1, 1);
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name);
    Guarded gx(v.device, DType::f32, {2, 300}), gr(v.device, DType::f32, {2, 300}), gw(v.device, DType::f32, {300});
    Guarded sum(v.device, DType::f32, {2, 300}), y(v.device, DType::f32, {2, 300});
    for (const bool sum_is_x : {true, false}) {
      gx.write(x);
      gr.write(r);
      gw.write(w);
      const Tensor to_sum = sum_is_x ? gx.tensor() : gr.tensor(), to_y = sum_is_x ? gr.tensor() : gx.tensor();
      must(run(v.device, [&](CommandEncoder& e) -> Result<void> {
        MLXN_CHECK(ops::encode_add_rms_norm(e, gx.tensor(), gr.tensor(), gw.tensor(), sum.tensor(), y.tensor(), 1e-5f, v.isa));
        return ops::encode_add_rms_norm(e, gx.tensor(), gr.tensor(), gw.tensor(), to_sum, to_y, 1e-5f, v.isa);
      }));
      EXPECT_EQ((sum_is_x ? gx : gr).read(), sum.read());
      EXPECT_EQ((sum_is_x ? gr : gx).read(), y.read());
    }
  }
}

TEST(AddRmsNorm, nan_and_infinity_stay_in_their_row) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name);
    Guarded x(v.device, DType::f32, {3, 2}), r(v.device, DType::f32, {3, 2}), sum(v.device, DType::f32, {3, 2}), y(v.device, DType::f32, {3, 2});
    write(x, DType::f32, {nan, 1, 1, 2, inf, 3});
    write(r, DType::f32, {0, 1, 3, 4, 1, 1});
    must(run(v.device, [&](CommandEncoder& e) {
      return ops::encode_add_rms_norm(e, x.tensor(), r.tensor(), {}, sum.tensor(), y.tensor(), 1e-6f, v.isa);
    }));
    const std::vector<float> s = sum.read(), got = y.read();
    EXPECT_TRUE(std::isnan(s[0]) && std::isnan(got[0]) && std::isnan(got[1]));
    EXPECT_EQ(s[2], 4.0f);
    EXPECT_TRUE(std::isfinite(got[2]) && std::isfinite(got[3]));
    EXPECT_EQ(s[4], inf);
    EXPECT_TRUE(std::isnan(got[4]));
    EXPECT_EQ(got[5], 0.0f);
  }
}

TEST(AddRmsNorm, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor x = make(DType::f16, {4, 8}), r = make(DType::f16, {4, 8}), w = make(DType::f32, {8});
  const Tensor s = make(DType::f16, {4, 8}), y = make(DType::f16, {4, 8});
  const auto attempt = [&](const Tensor& a, const Tensor& b, const Tensor& weight, const Tensor& sum, const Tensor& out,
                           float eps = 1e-6f) {
    CommandEncoder encoder = must(device.encoder());
    return add_rms_norm(encoder, a, b, weight, sum, out, eps);
  };
  EXPECT_TRUE(attempt(x, r, w, s, y).has_value());
  EXPECT_TRUE(attempt(x, r, {}, x, r).has_value());
  EXPECT_TRUE(attempt(x, r, {}, r, x).has_value());
  EXPECT_TRUE(attempt(x, x, {}, x, y).has_value());
  EXPECT_TRUE(fails_with(attempt({}, r, w, s, y), ErrorCode::invalid_argument, {"add_rms_norm", "x", "empty"}));
  EXPECT_TRUE(fails_with(attempt(x, {}, w, s, y), ErrorCode::invalid_argument, {"add_rms_norm", "residual", "empty"}));
  EXPECT_TRUE(fails_with(attempt(x, r, w, {}, y), ErrorCode::invalid_argument, {"add_rms_norm", "sum", "empty"}));
  EXPECT_TRUE(fails_with(attempt(x, r, w, s, {}), ErrorCode::invalid_argument, {"add_rms_norm", "y", "empty"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::i32, {4, 8}), r, w, s, y), ErrorCode::bad_dtype, {"add_rms_norm", "x", "i32"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::f32, {4, 8}), w, s, y), ErrorCode::bad_dtype, {"add_rms_norm", "residual", "f32", "f16"}));
  EXPECT_TRUE(fails_with(attempt(x, r, make(DType::bf16, {8}), s, y), ErrorCode::bad_dtype, {"add_rms_norm", "w", "bf16", "f32, f16"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::f16, {8}), w, s, y), ErrorCode::bad_shape, {"add_rms_norm", "residual", "[8]", "[4, 8]"}));
  EXPECT_TRUE(fails_with(attempt(x, r, make(DType::f32, {7}), s, y), ErrorCode::bad_shape, {"add_rms_norm", "w", "[7]", "[8]"}));
  EXPECT_TRUE(fails_with(attempt(x, r, w, make(DType::f16, {3, 8}), y), ErrorCode::bad_shape, {"add_rms_norm", "sum", "[3, 8]"}));
  EXPECT_TRUE(fails_with(attempt(x, r, w, s, make(DType::f16, {3, 8})), ErrorCode::bad_shape, {"add_rms_norm", "y", "[3, 8]"}));
  EXPECT_TRUE(fails_with(attempt(x, r, w, s, s), ErrorCode::aliased, {"add_rms_norm", "y", "sum"}));
  EXPECT_TRUE(fails_with(attempt(x, r, w, x, x), ErrorCode::aliased, {"add_rms_norm", "y", "sum"}));
  const Tensor long_row = make(DType::f16, {64});
  const Tensor low = must(long_row.slice(0, 0, 32)), high = must(long_row.slice(0, 1, 33)), apart = make(DType::f16, {32});
  const Tensor also_apart = make(DType::f16, {32});
  EXPECT_TRUE(fails_with(attempt(low, apart, {}, high, also_apart), ErrorCode::aliased, {"add_rms_norm", "sum", "x"}));
  EXPECT_TRUE(fails_with(attempt(apart, low, {}, also_apart, high), ErrorCode::aliased, {"add_rms_norm", "y", "residual"}));
  const Tensor floats = make(DType::f32, {8}), other = make(DType::f32, {8}), third = make(DType::f32, {8});
  EXPECT_TRUE(fails_with(attempt(other, third, floats, floats, make(DType::f32, {8})), ErrorCode::aliased, {"add_rms_norm", "sum", "w"}));
  EXPECT_TRUE(fails_with(attempt(other, third, floats, make(DType::f32, {8}), floats), ErrorCode::aliased, {"add_rms_norm", "y", "w"}));
  for (const float eps : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_TRUE(fails_with(attempt(x, r, w, s, y, eps), ErrorCode::invalid_argument, {"add_rms_norm", "eps"}));
  }
  const Tensor none = must(x.slice(0, 1, 1));
  EXPECT_TRUE(attempt(none, must(r.slice(0, 1, 1)), w, must(s.slice(0, 1, 1)), must(y.slice(0, 1, 1))).has_value());
  EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::f16, {4, 8})), r, w, s, y), ErrorCode::wrong_device, {"add_rms_norm", "x"}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(add_rms_norm(closed, x, r, w, s, y, 1e-6f), ErrorCode::wrong_state, {"add_rms_norm"}));
  CommandEncoder open = must(device.encoder());
  EXPECT_TRUE(fails_with(ops::encode_add_rms_norm(open, x, r, w, s, y, 1e-6f, kForeignIsa), ErrorCode::unsupported,
                         {"add_rms_norm", std::string(to_string(kForeignIsa))}));
}

}  // namespace
}  // namespace mlxn::test::add_rms_norm_suite
