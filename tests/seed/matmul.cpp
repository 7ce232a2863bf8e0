// The eleven acceptance tests of the product with GGUF weights: the tile route against the vector route on fixed data,
// for every device, both doors and the numeric classes. Checksums, first blocks and outputs pin the data down.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/ops/matmul.h"
#include "mlxn/quant.h"
#include "tests/support/crc32.h"
#include "tests/support/devices.h"
#include "tests/support/guarded.h"
#include "tests/support/seed_data.h"

namespace mlxn::test {
namespace {

struct SeedCase {
  DType type;
  std::size_t m, n, k;
  std::uint64_t seed_w, seed_x;
  float tolerance;
  std::uint32_t crc;
  double first, last;  // of y, from an f64 dot of the decoded weights
};

constexpr SeedCase kQ4Small = {DType::q4_0, 16, 64, 128, 0xA1B2, 0x1234, 5e-3f, 0xf6fc497a, 8.260145, 7.608930};
constexpr SeedCase kQ4Prefill = {DType::q4_0, 64, 256, 2048, 0xC0FFEE, 0xDEADBEEF, 5e-2f, 0xad800532, 131.402475, 128.574990};
constexpr SeedCase kQ4Irregular = {DType::q4_0, 40, 96, 256, 0x13, 0x42, 1e-2f, 0x5645314e, 17.330498, 16.892299};
constexpr SeedCase kQ8Small = {DType::q8_0, 16, 64, 128, 0xB1A2, 0x5678, 1e-3f, 0x72973740, 6.739485, 7.762470};
constexpr SeedCase kQ8Prefill = {DType::q8_0, 64, 128, 2112, 0xBEEF, 0xBABE, 2e-2f, 0xafe25639, 132.351797, 131.770639};
constexpr SeedCase kQ8Irregular = {DType::q8_0, 17, 72, 256, 0x21, 0x22, 5e-3f, 0xc3a3fc7e, 16.582827, 15.140263};
constexpr SeedCase kQ6Small = {DType::q6_K, 16, 32, 256, 0xD1E2, 0x9ABC, 5e-3f, 0x5f093bd7, 15.548057, 16.176341};
constexpr SeedCase kQ6Prefill = {DType::q6_K, 64, 128, 2048, 0xFACE, 0xF00D, 2e-2f, 0x9ae9ab9c, 133.577282, 127.830610};
constexpr SeedCase kQ6Irregular = {DType::q6_K, 33, 100, 512, 0x55, 0x66, 5e-3f, 0x65f1e6ec, 31.661552, 31.032009};
constexpr SeedCase kFiniteAtOneRow = {DType::q4_0, 1, 16, 64, 0xAA, 0xBB, 0, 0xdb5052f7, 3.847226, 4.410631};
constexpr SeedCase kAboveThreshold = {DType::q4_0, 9, 32, 128, 0xEE, 0xFF, 5e-3f, 0x9035713d, 8.754772, 8.254216};

struct SeedData {
  std::vector<std::byte> w;
  std::vector<float> x;
};

SeedData make_data(const SeedCase& c, std::size_t m) {
  return {seed_pack(c.type, Lcg(c.seed_w).take(c.n * c.k)), Lcg(c.seed_x).take(m * c.k)};
}

std::string hex(std::span<const std::byte> bytes) {
  std::string out;
  for (const std::byte b : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(b));
    out += digits;
  }
  return out;
}

void check_data(const SeedCase& c, const SeedData& data) {
  EXPECT_EQ(crc32(data.w), c.crc);
  std::vector<float> w(c.n * c.k);
  must(dequantize(c.type, data.w, w));
  const auto dot = [&](std::size_t row, std::size_t column) {
    double sum = 0;
    for (std::size_t i = 0; i < c.k; ++i) sum += double{data.x[row * c.k + i]} * double{w[column * c.k + i]};
    return sum;
  };
  EXPECT_NEAR(dot(0, 0), c.first, 6e-7);
  EXPECT_NEAR(dot(c.m - 1, c.n - 1), c.last, 6e-7);
}

/// Through which door the weights go.
enum class Door { raw, prepared };

MatmulShape shape_of(const SeedCase& c, std::size_t m) {
  return {static_cast<std::int64_t>(m), static_cast<std::int64_t>(c.n), static_cast<std::int64_t>(c.k), c.type};
}

// y of `rows` rows of x from `first_row` on.
std::vector<float> multiply(const Device& device, Door door, const SeedCase& c, const Guarded& raw, const Weight& weight,
                            std::span<const float> x, const MatmulOptions& options) {
  const std::size_t m = x.size() / c.k;
  const MatmulShape shape = shape_of(c, m);
  Guarded x_buffer(device, DType::f32, {shape.m, shape.k});
  Guarded y_buffer(device, DType::f32, {shape.m, shape.n});
  x_buffer.write(x);
  must(run(device, [&](CommandEncoder& encoder) {
    return door == Door::raw ? quantized_matmul_ggml(encoder, x_buffer.tensor(), raw.tensor(), y_buffer.tensor(), shape, options)
                             : matmul(encoder, x_buffer.tensor(), weight, y_buffer.tensor(), options);
  }));
  EXPECT_TRUE(y_buffer.intact());
  EXPECT_TRUE(x_buffer.unchanged());
  EXPECT_TRUE(raw.unchanged());
  return y_buffer.read();
}

class Seed : public testing::TestWithParam<std::string> {
 protected:
  const Device& device() const { return device_named(GetParam()); }

  // Runs the tile route on all rows in each class and the vector route on every row alone.
  void compare_routes(const SeedCase& c, std::size_t m) {
    const SeedData data = make_data(c, m);
    Guarded raw(device(), DType::u8, {static_cast<std::int64_t>(data.w.size())});
    raw.write(std::span<const std::byte>(data.w));
    Guarded blocks(device(), c.type, {static_cast<std::int64_t>(c.n), static_cast<std::int64_t>(c.k)});
    blocks.write(std::span<const std::byte>(data.w));
    PrepareOptions prepare;
    prepare.mode = PrepareMode::on;
    const Weight weight = must(Weight::prepare(device(), blocks.tensor(), prepare));

    for (const Door door : {Door::raw, Door::prepared}) {
      SCOPED_TRACE(door == Door::raw ? "raw blocks" : "prepared weight");
      std::vector<float> exact_rows;
      for (const Numerics numerics : {Numerics::exact, Numerics::f16, Numerics::int8act}) {
        SCOPED_TRACE(std::string(to_string(numerics)));
        const MatmulOptions vector_route = {numerics, Route::vector};
        const MatmulOptions tile_route = {numerics, Route::tile};
        // Only the classes in which the tests are met are every device's.
        if (numerics == Numerics::int8act && device().capabilities().backend != "cpu") {
          EXPECT_TRUE(fails_with(plan_matmul(device(), shape_of(c, m), door == Door::prepared, tile_route), ErrorCode::unsupported, {}));
          continue;
        }
        for (const auto& [options, rows] : {std::pair(vector_route, std::size_t{1}), std::pair(tile_route, m)}) {
          const MatmulPlan plan = must(plan_matmul(device(), shape_of(c, rows), door == Door::prepared, options));
          EXPECT_EQ(plan.route, options.route) << plan.kernel;
          EXPECT_EQ(plan.numerics, numerics) << plan.kernel;
        }
        std::vector<float> rows;
        for (std::size_t row = 0; row < m; ++row) {
          const std::vector<float> y = multiply(device(), door, c, raw, weight, std::span(data.x).subspan(row * c.k, c.k), vector_route);
          rows.insert(rows.end(), y.begin(), y.end());
        }
        if (numerics == Numerics::exact) exact_rows = rows;
        const std::vector<float> tile = multiply(device(), door, c, raw, weight, data.x, tile_route);
        // int8act rounds the activations itself, which alone exceeds the tolerance: its routes are compared with each other.
        const std::vector<float>& wanted = numerics == Numerics::int8act ? rows : exact_rows;
        float worst = 0;
        for (std::size_t i = 0; i < tile.size(); ++i) {
          worst = std::isfinite(tile[i]) ? std::max(worst, std::fabs(tile[i] - wanted[i])) : INFINITY;
          if (numerics != Numerics::int8act) {
            EXPECT_LE(std::fabs(rows[i] - exact_rows[i]), c.tolerance) << "vector route, element " << i;
          }
        }
        EXPECT_LE(worst, c.tolerance);
      }
    }
  }

  void run_case(const SeedCase& c) {
    check_data(c, make_data(c, c.m));
    compare_routes(c, c.m);
  }
};

TEST(SeedData, GeneratorsAndPackersAreTheReferenceOnes) {
  const std::vector<float> one = Lcg(1).take(4);
  EXPECT_EQ(one, (std::vector<float>{-0.288395405f, -0.24529627f, -0.175820291f, -0.308568299f}));
  EXPECT_EQ(Lcg(0xA1B2).take(2), (std::vector<float>{-0.485216141f, -0.102547109f}));
  EXPECT_EQ(Lcg(0xB1A2).take(2), (std::vector<float>{-0.184163511f, -0.376834631f}));
  EXPECT_EQ(Lcg(0xD1E2).take(2), (std::vector<float>{-0.0220334828f, -0.355392933f}));

  const std::vector<std::byte> q4 = make_data(kQ4Small, 1).w;
  EXPECT_EQ(hex(std::span(q4).first(18)), "762c31476116634428477311575614321476");
  const std::vector<std::byte> q8 = make_data(kQ8Small, 1).w;
  EXPECT_EQ(hex(std::span(q8).first(10)), "041cd1a0d1eacaa4a3b7");
  const std::vector<std::byte> q6 = make_data(kQ6Small, 1).w;
  EXPECT_EQ(hex(std::span(q6).subspan(192, 18)), "7e717e7a7e767479777a707d6c7f767ffe07");
}

TEST(SeedData, ChecksumsAndOutputsOfAllCases) {
  for (const SeedCase& c : {kQ4Small, kQ4Prefill, kQ4Irregular, kQ8Small, kQ8Prefill, kQ8Irregular, kQ6Small, kQ6Prefill,
                            kQ6Irregular, kFiniteAtOneRow, kAboveThreshold}) {
    SCOPED_TRACE(testing::Message() << to_string(c.type) << " " << c.m << "x" << c.n << "x" << c.k);
    check_data(c, make_data(c, c.m));
  }
}

TEST_P(Seed, Q4_0Small) { run_case(kQ4Small); }
TEST_P(Seed, Q4_0Prefill) { run_case(kQ4Prefill); }
TEST_P(Seed, Q4_0Irregular) { run_case(kQ4Irregular); }
TEST_P(Seed, Q8_0Small) { run_case(kQ8Small); }
TEST_P(Seed, Q8_0Prefill) { run_case(kQ8Prefill); }
TEST_P(Seed, Q8_0Irregular) { run_case(kQ8Irregular); }
TEST_P(Seed, Q6_KSmall) { run_case(kQ6Small); }
TEST_P(Seed, Q6_KPrefill) { run_case(kQ6Prefill); }
TEST_P(Seed, Q6_KIrregular) { run_case(kQ6Irregular); }

TEST_P(Seed, FiniteAtOneRow) {
  const SeedCase& c = kFiniteAtOneRow;
  const SeedData data = make_data(c, c.m);
  check_data(c, data);
  Guarded raw(device(), DType::u8, {static_cast<std::int64_t>(data.w.size())});
  raw.write(std::span<const std::byte>(data.w));
  const std::vector<float> y = multiply(device(), Door::raw, c, raw, Weight(), data.x, {});
  ASSERT_EQ(y.size(), 16u);
  float sum = 0;
  for (const float v : y) {
    EXPECT_TRUE(std::isfinite(v));
    sum += std::fabs(v);
  }
  EXPECT_GT(sum, 0.0f);
}

TEST_P(Seed, OneRowAboveTheThreshold) {
  run_case(kAboveThreshold);
  // The same at the device's own threshold, which is a matter of tuning.
  const MatmulShape shape = shape_of(kAboveThreshold, kAboveThreshold.m);
  const std::int64_t threshold = must(matmul_vector_threshold(device(), shape, false));
  ASSERT_GE(threshold, 0);
  if (threshold >= 4096) return;
  MatmulShape at = shape;
  at.m = threshold;
  if (threshold > 0) {
    EXPECT_EQ(must(plan_matmul(device(), at, false)).route, Route::vector);
  }
  at.m = threshold + 1;
  EXPECT_EQ(must(plan_matmul(device(), at, false)).route, Route::tile);
  compare_routes(kAboveThreshold, static_cast<std::size_t>(threshold) + 1);
}

INSTANTIATE_TEST_SUITE_P(Matmul, Seed, testing::ValuesIn(device_names()),
                         [](const auto& param) { return test_name(param.param); });

}  // namespace
}  // namespace mlxn::test
