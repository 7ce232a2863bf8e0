#include "ops/argmax/argmax.h"

#include "tests/conformance/variants.h"
#include "tests/reference/argmax.h"

namespace mlxn::test::argmax_suite {
namespace {

const float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::uint32_t> as_ids(const Guarded& guarded) {
  const std::vector<std::byte> bytes = guarded.read_bytes();
  std::vector<std::uint32_t> ids(bytes.size() / 4);
  std::memcpy(ids.data(), bytes.data(), bytes.size());
  return ids;
}

void check(const Variant& v, DType type, std::int64_t rows, std::int64_t n, const std::vector<float>& values) {
  const std::vector<float> x = rounded(type, values);
  for (const bool with_values : {true, false}) {
    SCOPED_TRACE(v.name + " " + std::string(to_string(type)) + " [" + std::to_string(rows) + ", " + std::to_string(n) + "]");
    Guarded gx(v.device, type, {rows, n}, {with_values ? 3 : 0, block_bytes(type)});
    Guarded ids(v.device, DType::u32, {rows}), best(v.device, DType::f32, {rows});
    write(gx, type, x);
    const Tensor out = with_values ? best.tensor() : Tensor();
    must(run(v.device, [&](CommandEncoder& e) { return ops::encode_argmax(e, gx.tensor(), ids.tensor(), out, v.isa); }));
    EXPECT_TRUE(ids.intact());
    EXPECT_TRUE(best.intact());
    EXPECT_TRUE(gx.unchanged());
    for (std::int64_t r = 0; r < rows; ++r) {
      const reference::Argmax wanted = reference::argmax({x.begin() + r * n, x.begin() + (r + 1) * n});
      ASSERT_EQ(as_ids(ids)[static_cast<std::size_t>(r)], wanted.index) << "row " << r;
      if (with_values) {
        ASSERT_EQ(best.read()[static_cast<std::size_t>(r)], wanted.value) << "row " << r;
      }
    }
  }
}
void check(DType type, std::int64_t rows, std::int64_t n, const std::vector<float>& values) {
  for (const Variant& v : variants()) check(v, type, rows, n, values);
}

TEST(Argmax, sizes_and_types) {
  Random random(21);
  SCOPED_TRACE(random.trace());
  for (const DType type : kFloats) {
    for (const std::int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 511, 512, 513, 1021, 4099}) {
      for (const std::int64_t rows : {1, 3}) {
        check(type, rows, n, random.uniform(static_cast<std::size_t>(rows * n), -5, 5));
        check(type, rows, n, random.uniform(static_cast<std::size_t>(rows * n), -5, -4));
        if (HasFatalFailure()) return;
      }
    }
    check(type, 2, 12301, random.uniform(2 * 12301, -5, 5));  // a GPU takes a row of this length in parts
    if (HasFatalFailure()) return;
  }
}

TEST(Argmax, vocabulary) {
  Random random(22);
  std::vector<float> x = random.uniform(262144, -10, 10);
  check(DType::f32, 1, 262144, x);
  x[131072] = 100;
  check(DType::f32, 1, 262144, x);
  for (const std::size_t at : {std::size_t{0}, std::size_t{131071}, std::size_t{262143}}) {
    std::vector<float> flat(262144, -1.0f);
    flat[at] = 0;
    check(DType::f32, 1, 262144, flat);
  }
}

TEST(Argmax, lowest_index_wins) {
  std::vector<float> x(4096, 0.0f);
  x[1] = x[1024] = x[4095] = 3;
  check(DType::f32, 1, 4096, x);
  check(DType::f32, 1, 8, {0, 2, 0, 0, 2, 0, 0, 2});
  check(DType::f32, 1, 3, {-0.0f, 0.0f, 0.0f});
  check(DType::f32, 1, 50000, std::vector<float>(50000, 1.5f));
  std::vector<float> across(50000, 0.0f);  // equals on both sides of every cut between threads
  for (std::size_t i = 20000; i < 30000; ++i) across[i] = 1;
  check(DType::f32, 1, 50000, across);
}

TEST(Argmax, nan_never_wins) {
  check(DType::f32, 1, 5, {kNan, 1, kNan, 2, kNan});
  check(DType::f32, 2, 3, {kNan, kNan, kNan, kNan, kNan, -kInf});
  check(DType::f32, 1, 3, {-kInf, -kInf, -kInf});
  check(DType::f32, 1, 4, {1, kInf, kNan, kInf});
  std::vector<float> x(50001, kNan);
  check(DType::f32, 1, 50001, x);
  x[40000] = x[50000] = -kInf;
  check(DType::f32, 1, 50001, x);
}

TEST(Argmax, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor x = make(DType::f32, {4, 8}), ids = make(DType::u32, {4}), values = make(DType::f32, {4});
  const auto attempt = [&](const Tensor& in, const Tensor& out, const Tensor& best = {}, std::optional<CpuIsa> isa = {}) {
    CommandEncoder encoder = must(device.encoder());
    return isa ? ops::encode_argmax(encoder, in, out, best, isa) : argmax(encoder, in, out, best);
  };
  EXPECT_TRUE(attempt(x, ids, values).has_value());
  EXPECT_TRUE(fails_with(attempt({}, ids), ErrorCode::invalid_argument, {"argmax", "x"}));
  EXPECT_TRUE(fails_with(attempt(x, {}), ErrorCode::invalid_argument, {"argmax", "ids"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::u8, {4, 8}), ids), ErrorCode::bad_dtype, {"argmax", "x", "u8"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::i32, {4})), ErrorCode::bad_dtype, {"argmax", "ids", "i32", "u32"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, make(DType::f16, {4})), ErrorCode::bad_dtype, {"argmax", "values", "f16"}));
  EXPECT_TRUE(fails_with(attempt(x, make(DType::u32, {3})), ErrorCode::bad_shape, {"argmax", "ids", "[3]", "[4]"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, make(DType::f32, {5})), ErrorCode::bad_shape, {"argmax", "values", "[5]"}));
  EXPECT_TRUE(fails_with(attempt(make(DType::f32, {1, 2, 4}), ids), ErrorCode::bad_shape, {"argmax", "x", "[1, 2, 4]"}));
  EXPECT_TRUE(fails_with(attempt(must(x.slice(1, 0, 0)), ids), ErrorCode::bad_shape, {"argmax", "x", "[4, 0]"}));
  EXPECT_TRUE(
      fails_with(attempt(must(make(DType::f32, {8, 4}).permute({1, 0})), ids), ErrorCode::bad_shape, {"x", "stride"}));
  const Tensor over_x = must(must(x.reshape({32})).slice(0, 0, 4));
  EXPECT_TRUE(
      fails_with(attempt(x, must(over_x.reinterpret(DType::u32, {4}))), ErrorCode::aliased, {"argmax", "ids", "x"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, over_x), ErrorCode::aliased, {"argmax", "values", "x"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, must(ids.reinterpret(DType::f32, {4}))), ErrorCode::aliased, {"values", "ids"}));
  EXPECT_TRUE(
      fails_with(attempt(must(cpu(1).allocate(DType::f32, {4, 8})), ids), ErrorCode::wrong_device, {"argmax", "x"}));
  EXPECT_TRUE(fails_with(attempt(x, ids, {}, kForeignIsa), ErrorCode::unsupported, {"argmax", std::string(to_string(kForeignIsa))}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(argmax(closed, x, ids), ErrorCode::wrong_state, {"argmax"}));
  EXPECT_TRUE(attempt(must(x.slice(0, 2, 2)), must(ids.slice(0, 2, 2))).has_value());
}

}  // namespace
}  // namespace mlxn::test::argmax_suite
