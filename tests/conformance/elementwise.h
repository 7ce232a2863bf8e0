#pragma once

#include <functional>
#include <optional>

#include "tests/conformance/variants.h"

namespace mlxn::test {

/// An operation y = f(a, b) as the suites see it.
struct ElementwiseOp {
  std::string name;
  std::function<Result<void>(CommandEncoder&, const Tensor& a, const Tensor& b, const Tensor& y, std::optional<CpuIsa>)>
      encode;
  std::function<Reference(double a, double b)> reference;
  double terms = 1;  ///< f32 roundings on the way
  bool has_b = true;
  bool row_b = false;  ///< b may be one row, and f32
  std::string a_name = "a", b_name = "b";
};

struct ElementwiseCase {
  Shape shape;
  DType type = DType::f32, b_type = DType::f32;
  bool one_row = false;
  std::int64_t a_pad = 0, b_pad = 0, y_pad = 0;
};

/// Runs a case on every variant: every element within its bound, guards intact, the same bits in a family.
inline void check_case(const ElementwiseOp& op, const ElementwiseCase& c, const std::vector<float>& a_values,
                       const std::vector<float>& b_values) {
  const std::size_t dim = static_cast<std::size_t>(c.shape[c.shape.rank() - 1]);
  const std::vector<float> a = rounded(c.type, a_values), b = rounded(c.b_type, b_values);
  SameInFamily<std::vector<std::byte>> same;
  for (const Variant& v : variants()) {
    SCOPED_TRACE(op.name + " " + v.name + " " + std::string(to_string(c.type)) + " dim " + std::to_string(dim));
    const std::uint64_t shift = block_bytes(c.type);
    Guarded ga(v.device, c.type, c.shape, {c.a_pad, shift});
    Guarded gb(v.device, c.b_type, c.one_row ? Shape{c.shape[c.shape.rank() - 1]} : c.shape, {c.b_pad, 0});
    Guarded gy(v.device, c.type, c.shape, {c.y_pad, 3 * shift});
    write(ga, c.type, a);
    write(gb, c.b_type, b);
    must(run(v.device, [&](CommandEncoder& e) { return op.encode(e, ga.tensor(), gb.tensor(), gy.tensor(), v.isa); }));
    EXPECT_TRUE(gy.intact());
    EXPECT_TRUE(ga.unchanged());
    EXPECT_TRUE(gb.unchanged());
    const std::vector<float> y = gy.read();
    for (std::size_t i = 0; i < y.size(); ++i) {
      const Reference wanted = op.reference(a[i], b[c.one_row ? i % dim : i]);
      ASSERT_TRUE(is_near(y[i], wanted, {.out = c.type, .terms = op.terms})) << "element " << i << " of " << a[i];
    }
    ASSERT_TRUE(same(v, gy.read_bytes()));
  }
}

inline void check_sizes(const ElementwiseOp& op) {
  Random random(7);
  SCOPED_TRACE(random.trace());
  for (const DType type : kFloats) {
    for (const std::int64_t dim : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 1021, 20011}) {
      for (const std::int64_t rows : {1, 2, 5}) {
        if (rows > 2 && dim > 10000) continue;
        const auto count = static_cast<std::size_t>(rows * dim);
        ElementwiseCase c{.shape = {rows, dim}, .type = type, .b_type = type};
        c.a_pad = rows % 3;
        c.b_pad = dim % 2;
        c.y_pad = rows;
        check_case(op, c, random.uniform(count, -8, 8), random.uniform(count, -3, 3));
        if (op.row_b) {
          c.one_row = true;
          c.b_pad = 0;
          c.b_type = dim % 2 == 0 ? DType::f32 : type;
          check_case(op, c, random.uniform(count, -8, 8), random.uniform(static_cast<std::size_t>(dim), -3, 3));
        }
        if (testing::Test::HasFatalFailure()) return;
      }
    }
    check_case(op, {.shape = {37}, .type = type, .b_type = type}, random.uniform(37, -8, 8), random.uniform(37, -3, 3));
    check_case(op, {.shape = {3, 2, 19}, .type = type, .b_type = type, .a_pad = 2}, random.uniform(114, -8, 8),
               random.uniform(114, -3, 3));
  }
}

/// Every pair of special values, in vectors and in tails.
inline void check_specials(const ElementwiseOp& op) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> special = {0.0f,   -0.0f,   1.0f,   -1.0f, 0.5f, 12.0f, -12.0f,
                                      100.0f, -100.0f, -86.0f, 88.0f, inf,  -inf,  nan};
  std::vector<float> a, b;
  for (const float x : special) {
    for (const float y : special) {
      a.push_back(x);
      b.push_back(y);
    }
  }
  for (const DType type : kFloats) {
    check_case(op, {.shape = {static_cast<std::int64_t>(a.size())}, .type = type, .b_type = type}, a, b);
  }
}

/// y may be exactly a or b, whose elements are each read before they are written.
inline void check_in_place(const ElementwiseOp& op) {
  Random random(8);
  const std::vector<float> a = random.uniform(3 * 45, -4, 4), b = random.uniform(3 * 45, -4, 4);
  for (const Variant& v : variants()) {
    SCOPED_TRACE(v.name);
    for (const bool into_b : {false, true}) {
      if (into_b && !op.has_b) continue;
      Guarded ga(v.device, DType::f32, {3, 45}, {2, 0}), gb(v.device, DType::f32, {3, 45}, {2, 0}),
          gy(v.device, DType::f32, {3, 45});
      ga.write(a);
      gb.write(b);
      must(run(v.device, [&](CommandEncoder& e) { return op.encode(e, ga.tensor(), gb.tensor(), gy.tensor(), v.isa); }));
      const Guarded& target = into_b ? gb : ga;
      must(run(v.device, [&](CommandEncoder& e) { return op.encode(e, ga.tensor(), gb.tensor(), target.tensor(), v.isa); }));
      EXPECT_EQ(target.read(), gy.read());
      EXPECT_TRUE(target.intact());
      if (!op.has_b) continue;
      // a and b are the halves of each row of one buffer.
      Guarded both(v.device, DType::f32, {3, 90});
      std::vector<float> rows;
      for (std::ptrdiff_t row = 0; row < 3; ++row) {
        for (const std::vector<float>* half : {&a, &b}) rows.insert(rows.end(), half->begin() + row * 45, half->begin() + (row + 1) * 45);
      }
      both.write(rows);
      const Tensor left = must(both.tensor().slice(1, 0, 45)), right = must(both.tensor().slice(1, 45, 90));
      must(run(v.device, [&](CommandEncoder& e) { return op.encode(e, left, right, into_b ? right : left, v.isa); }));
      const std::vector<float> wanted = gy.read(), got = both.read();
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const bool written = (i % 90 >= 45) == into_b;
        ASSERT_EQ(got[i], written ? wanted[i / 90 * 45 + i % 45] : rows[i]) << i;
      }
    }
  }
}

/// The error codes that the operations share.
inline void check_errors(const ElementwiseOp& op) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor x = make(DType::f32, {4, 8}), z = make(DType::f32, {4, 8}), y = make(DType::f32, {4, 8});
  const auto attempt = [&](const Tensor& a, const Tensor& b, const Tensor& out, std::optional<CpuIsa> isa = {}) {
    CommandEncoder encoder = must(device.encoder());
    return op.encode(encoder, a, b, out, isa);
  };
  EXPECT_TRUE(attempt(x, z, y).has_value());
  EXPECT_TRUE(fails_with(attempt({}, z, y), ErrorCode::invalid_argument, {op.name, op.a_name, "empty"}));
  EXPECT_TRUE(fails_with(attempt(x, z, {}), ErrorCode::invalid_argument, {op.name, "y"}));
  EXPECT_TRUE(
      fails_with(attempt(make(DType::u32, {4, 8}), z, y), ErrorCode::bad_dtype, {op.name, op.a_name, "u32", "f32"}));
  EXPECT_TRUE(fails_with(attempt(x, z, make(DType::f16, {4, 8})), ErrorCode::bad_dtype, {op.name, "y", "f16", "f32"}));
  EXPECT_TRUE(
      fails_with(attempt(x, z, make(DType::f32, {4, 9})), ErrorCode::bad_shape, {op.name, "y", "[4, 9]", "[4, 8]"}));
  EXPECT_TRUE(fails_with(attempt(must(x.permute({1, 0})), z, y), ErrorCode::bad_shape, {op.name, op.a_name, "stride"}));
  const Tensor wide = make(DType::f32, {1, 1, 4, 8});
  EXPECT_TRUE(fails_with(attempt(wide, wide, wide), ErrorCode::bad_shape, {op.name, op.a_name, "axes"}));
  const Tensor long_row = make(DType::f32, {64});
  const auto part = [&](std::int64_t begin) { return must(long_row.slice(0, begin, begin + 32)); };
  EXPECT_TRUE(fails_with(attempt(part(0), part(32), part(8)), ErrorCode::aliased, {op.name, "y"}));
  const Tensor same = must(Tensor::make(make(DType::f32, {32}).allocation(), DType::f32, {4, 8}, 0, {0, 1}));
  EXPECT_TRUE(fails_with(attempt(x, z, same), ErrorCode::bad_shape, {op.name, "y", "rows"}));
  const Tensor foreign = must(cpu(1).allocate(DType::f32, {4, 8}));
  EXPECT_TRUE(fails_with(attempt(foreign, z, y), ErrorCode::wrong_device, {op.name, op.a_name}));
  EXPECT_TRUE(fails_with(attempt(x, z, y, kForeignIsa), ErrorCode::unsupported, {op.name, std::string(to_string(kForeignIsa))}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(op.encode(closed, x, z, y, {}), ErrorCode::wrong_state, {op.name, "encoder"}));
  if (op.has_b) {
    EXPECT_TRUE(fails_with(attempt(x, {}, y), ErrorCode::invalid_argument, {op.name, op.b_name}));
    EXPECT_TRUE(fails_with(attempt(x, make(DType::bf16, {4, 8}), y), ErrorCode::bad_dtype, {op.name, op.b_name, "bf16"}));
    EXPECT_TRUE(fails_with(attempt(x, make(DType::f32, {4, 7}), y), ErrorCode::bad_shape, {op.name, op.b_name, "[4, 7]"}));
  }
  const auto none = [&](const Tensor& t) { return must(t.slice(0, 2, 2)); };
  EXPECT_TRUE(attempt(none(x), none(z), none(y)).has_value());
  const auto hollow = [&](const Tensor& t) { return must(t.slice(1, 2, 2)); };
  EXPECT_TRUE(fails_with(attempt(hollow(x), hollow(z), hollow(y)), ErrorCode::bad_shape, {op.name, op.a_name, "[4, 0]"}));
}

}  // namespace mlxn::test

/// The suite of one operation.
#define MLXN_ELEMENTWISE_SUITE(suite, op)             \
  TEST(suite, sizes) { check_sizes(op); }             \
  TEST(suite, special_values) { check_specials(op); } \
  TEST(suite, in_place) { check_in_place(op); }       \
  TEST(suite, errors) { check_errors(op); }
