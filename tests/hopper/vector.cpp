// The kernel for few rows of x: its plans, and its source on the host against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cuda_on_host.h"
//
#include "ops/matmul/hopper_vector.cuh"
#include "quant/codec.h"
#include "quant/random_blocks.h"

namespace {

using namespace mlxn;
using namespace mlxn::sm90;
using ops::HopperVectorPlan;
using ops::plan_hopper_vector;

const DType kTypes[] = {
#define MLXN_TYPE(name) DType::name,
    MLXN_HOPPER_VECTOR_TYPES(MLXN_TYPE)
#undef MLXN_TYPE
};

constexpr std::uint32_t kF32 = quant::kElementF32, kF16 = quant::kElementF16, kBf16 = quant::kElementBf16;

struct Case {
  std::int64_t m, n, k;
  std::uint32_t x_type = kF32, y_type = kF32;
  std::uint32_t multiprocessors = 1;
  bool batch_invariant = false;
};

std::uint32_t bytes_of(std::uint32_t type) { return type == kF32 ? 4 : 2; }
void put(std::uint8_t* to, std::uint32_t type, float v) {
  const std::uint16_t bits = type == kF16 ? f16(v).bits : bf16(v).bits;
  if (type == kF32)
    std::memcpy(to, &v, 4);
  else
    std::memcpy(to, &bits, 2);
}
float get(const std::uint8_t* from, std::uint32_t type) {
  float v = 0;
  std::uint16_t bits = 0;
  if (type == kF32)
    std::memcpy(&v, from, 4);
  else
    std::memcpy(&bits, from, 2);
  return type == kF32   ? v
         : type == kF16 ? static_cast<float>(f16::from_bits(bits))
                        : static_cast<float>(bf16::from_bits(bits));
}

/// 32 values as the kernel is to take them: whole multiples of a power of two, at most 32576 of them; where in three
/// of four lanes at least one value of eight that a lane has (of f32, k 4 l .. 4 l + 3 and 16 more) outweighs the
/// others, or the block's largest does, of a power of two 2^15 times smaller.
void round_block(const float* x, std::uint32_t x_type, double* out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  int calm_lanes = 0;
  for (int lane = 0; lane < 4; ++lane) {
    float sum = 0, mine = 0;
    for (int i = 0; i < 8; ++i) {
      const float v = std::fabs(x[x_type == kF32 ? 4 * lane + i % 4 + i / 4 * 16 : 8 * lane + i]);
      sum += v, mine = std::max(mine, v);
    }
    if (sum - mine >= 0.5f * largest) ++calm_lanes;
  }
  int exponent = 0;
  double step = 0;
  if (largest > 0) {
    std::frexp(largest, &exponent);
    step = std::ldexp(1.0, exponent - 15);
    if (static_cast<double>(largest) / step >= 32576) step *= 2;
  }
  if (calm_lanes <= 1) step /= 32768;
  for (int i = 0; i < 32; ++i)
    out[i] = step == 0 ? 0 : std::nearbyint(static_cast<double>(x[i]) / step) * step;
}

struct Problem {
  Case c;
  std::vector<float> x;        // as its type holds it
  std::vector<double> y;       // product
  std::vector<double> near_y;  // product with x as the kernel rounds it
  std::vector<double> size;    // sum of magnitudes
  std::vector<double> power;   // sum of squares
  std::vector<uint4> records;
  std::vector<float> weights;  // [n, k]

  double weight(std::size_t row, std::size_t at) const {
    return static_cast<double>(weights[row * static_cast<std::size_t>(c.k) + at]);
  }
  /// Sum of magnitudes of a row's weights.
  double row_size(std::size_t row) const {
    double sum = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(c.k); ++i) sum += std::fabs(weight(row, i));
    return sum;
  }

  Problem(DType type, const Case& of) : c(of), x(static_cast<std::size_t>(c.m * c.k)) {
    const auto n_blocks = static_cast<std::uint64_t>(c.n * c.k / block_elems(type));
    std::vector<std::uint8_t> blocks(n_blocks * block_bytes(type));
    quant::fill_random_blocks(type, blocks.data(), n_blocks, 1.0f, static_cast<std::uint64_t>(c.n + c.k));
    std::vector<float>& w = weights;
    w.resize(static_cast<std::size_t>(c.n * c.k));
    quant::dequantize_blocks(type, blocks.data(), n_blocks, w.data());
    const quant::RecordFormat format = quant::record_format(type);
    records.resize(quant::record_grid(format, c.n, c.k).bytes() / 16);
    quant::pack_records(type, blocks.data(), c.n, c.k, records.data());

    std::mt19937 random(static_cast<std::uint32_t>(c.m + c.n + c.k));
    std::normal_distribution<float> normal;
    std::vector<std::uint8_t> element(4);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float scale = i % 352 == 77 ? 4000.0f : i / 32 % 5 == 0 ? 100.0f : 1.0f;
      put(element.data(), c.x_type, normal(random) * scale);
      x[i] = get(element.data(), c.x_type);
    }
    std::vector<double> near_x(x.size());
    for (std::size_t i = 0; i < x.size(); i += 32) round_block(&x[i], c.x_type, &near_x[i]);
    const auto k_elems = static_cast<std::size_t>(c.k);
    for (std::size_t i = 0; i < x.size(); i += k_elems)
      for (std::size_t j = 0; j < w.size(); j += k_elems) {
        double sum = 0, near_sum = 0, magnitude = 0, squares = 0;
        for (std::size_t e = 0; e < k_elems; ++e) {
          const double product = static_cast<double>(w[j + e]) * static_cast<double>(x[i + e]);
          sum += product;
          near_sum += static_cast<double>(w[j + e]) * near_x[i + e];
          magnitude += std::fabs(product);
          squares += product * product;
        }
        y.push_back(sum), near_y.push_back(near_sum), size.push_back(magnitude), power.push_back(squares);
      }
  }
};

/// Runs the instance that the plan names; the error.
template <class F>
std::string run_type(const HopperVectorPlan& plan) {
  return cuda_on_host::run(
      plan.grid, plan.threads,
      [&] {
        std::uint8_t* memory =
            mlxn::sm90::shared + cuda_on_host::cluster_rank() * cuda_on_host::kClusterSharedBytes;
        switch (plan.rows) {
          case 1:
            return vector_block<F, 1>(plan.args, memory);
          case 2:
            return vector_block<F, 2>(plan.args, memory);
          default:
            return vector_block<F, 4>(plan.args, memory);
        }
      },
      plan.cluster);
}
std::string run_plan(DType type, const HopperVectorPlan& plan) {
  switch (type) {
#define MLXN_RUN(name) \
  case DType::name:    \
    return run_type<vector_formats::name>(plan);
    MLXN_HOPPER_VECTOR_TYPES(MLXN_RUN)
#undef MLXN_RUN
    default:
      return "no such kernel";
  }
}

/// y as f32. Rows of x and y have gaps between them; those of y have to stay as they are.
std::vector<float> product(DType type, const Case& c, const Problem& problem) {
  HopperVectorPlan plan = plan_hopper_vector(type, c.m, c.n, c.k, c.multiprocessors, c.batch_invariant);
  EXPECT_EQ(plan.kernel,
            "matmul_hopper_vector" + std::to_string(plan.rows) + "_" + std::string(to_string(type)));
  if (!plan) return {};
  HopperVectorArgs& args = plan.args;
  args.x_type = c.x_type, args.y_type = c.y_type;
  args.x_stride = c.k + 32, args.y_stride = c.n + 3;
  const std::uint32_t x_bytes = bytes_of(c.x_type), y_bytes = bytes_of(c.y_type);
  std::vector<uint4> x_memory(static_cast<std::size_t>(c.m * args.x_stride) / 4, uint4{~0u, ~0u, ~0u, ~0u});
  auto* x = reinterpret_cast<std::uint8_t*>(x_memory.data());
  for (std::int64_t i = 0; i < c.m; ++i)
    for (std::int64_t k = 0; k < c.k; ++k)
      put(x + (i * args.x_stride + k) * x_bytes, c.x_type, problem.x[static_cast<std::size_t>(i * c.k + k)]);
  const std::int64_t y_elems = c.m * args.y_stride;
  std::vector<float> y_memory(static_cast<std::size_t>(y_elems));
  auto* y = reinterpret_cast<std::uint8_t*>(y_memory.data());
  std::memset(y, 0xcd, static_cast<std::size_t>(y_elems) * 4);
  args.records = {reinterpret_cast<const std::uint8_t*>(problem.records.data())};
  args.x = {x}, args.y = {y};
  EXPECT_EQ(run_plan(type, plan), "");
  std::vector<float> out;
  for (std::int64_t i = 0; i < y_elems; ++i) {
    if (i % args.y_stride < c.n)
      out.push_back(get(y + i * y_bytes, c.y_type));
    else
      EXPECT_EQ(std::memcmp(y + i * y_bytes, "\xcd\xcd\xcd\xcd", y_bytes), 0)
          << "behind row " << i / args.y_stride;
  }
  return out;
}

/// y[first..] of the problem. With x as the kernel rounds it, the sums of integers are exact and few f32
/// additions are left.
void expect_near(const std::vector<float>& y, const Problem& problem, std::size_t first = 0) {
  ASSERT_EQ(y.size(), problem.y.size());
  const std::uint32_t type = problem.c.y_type;
  const double rounding = type == kF32 ? 0 : type == kF16 ? 0x1p-11 : 0x1p-8;
  double error = 0, power = 0;
  for (std::size_t i = first; i < y.size(); ++i) {
    const double v = static_cast<double>(y[i]), d = v - problem.y[i];
    ASSERT_LE(std::fabs(v - problem.near_y[i]),
              3e-7 * problem.size[i] + rounding * std::fabs(problem.near_y[i]))
        << i;
    error += d * d, power += problem.power[i];
  }
  // 16-bit integers carry an error of about a 50,000th of the block's largest.
  const double limit = type == kF32 ? 4e-9 : type == kF16 ? 1e-7 : 1e-5;
  if (y.size() > 16) {
    EXPECT_LE(error / power, limit);
  }
}

void check(DType type, const Case& c) {
  SCOPED_TRACE(testing::Message() << to_string(type) << " m " << c.m << " n " << c.n << " k " << c.k << " x "
                                  << c.x_type << " y " << c.y_type);
  const Problem problem(type, c);
  expect_near(product(type, c, problem), problem);
}

class HopperVector : public testing::TestWithParam<DType> {};

/// `k` rounded up to whole blocks.
std::int64_t whole(DType type, std::int64_t k) {
  const std::int64_t block = block_elems(type);
  return (k + block - 1) / block * block;
}

TEST_P(HopperVector, RowsOfX) {
  for (std::int64_t m = 1; m <= 4; ++m) check(GetParam(), {m, 16 + m, whole(GetParam(), 224)});
}

TEST_P(HopperVector, Shapes) {
  const DType type = GetParam();
  check(type, {1, 1, whole(type, 32)});
  check(type, {1, 100, 256, kF32, kF32, 3});  // several blocks, the last one with fewer tiles
  check(type, {1, 33, whole(type, 96)});
  check(type, {2, 33, whole(type, 704)});
  check(type, {4, 17, whole(type, 2112)});
  check(type, {1, 48, whole(type, 2880), kF16});  // several stages, the last one not full
  check(type, {3, 20, whole(type, 1056), kBf16, kF16});
  check(type, {4, 31, 512, kF16, kBf16});
}

// A row's bits do not depend on its place among the block's tiles.
void check_same_bits_in_any_tile(DType type, std::int64_t k, std::int64_t tiles) {
  SCOPED_TRACE(testing::Message() << to_string(type) << " k " << k);
  Problem problem(type, {1, tiles * 16, k});
  const std::size_t tile = problem.records.size() / static_cast<std::size_t>(tiles);
  for (std::size_t i = tile; i < problem.records.size(); ++i) problem.records[i] = problem.records[i - tile];
  const std::vector<float> y = product(type, problem.c, problem);
  ASSERT_EQ(y.size(), static_cast<std::size_t>(tiles) * 16);
  for (std::size_t i = 16; i < y.size(); ++i) EXPECT_EQ(y[i], y[i - 16]) << i;
}
TEST_P(HopperVector, RowsAreTheSameBitsInAnyTile) {  // three stages of a tile: teams take turns
  const std::int64_t k = whole(GetParam(), 5120);
  EXPECT_GT(quant::record_grid(quant::record_format(GetParam()), 16, k).tile_records, 16u);
  check_same_bits_in_any_tile(GetParam(), k, 3);
}
// Three stages and a half, so that four teams have the short one by turns, and the ring goes round.
TEST(HopperVectorRing, ShortLastStagesGoRound) {
  for (const DType type : {DType::mxfp4, DType::q3_K, DType::q4_0}) {
    const ops::HopperVectorArgs args = plan_hopper_vector(type, 1, 112, 7168, 1, false).args;
    EXPECT_EQ(args.part[0].stages, 4u);
    EXPECT_EQ(args.part[0].last_bytes * 2, args.stage_bytes);
    EXPECT_LT(args.stages, 4 * args.tiles_per_block);
    check(type, {1, 112, 7168});
    check_same_bits_in_any_tile(type, 7168, 6);
  }
}

// Four rows leave a ring of few stages.
TEST(HopperVectorRing, FourRowsOfLargeK) {
  for (const DType type : {DType::q2_K, DType::mxfp4}) {
    const ops::HopperVectorArgs args = plan_hopper_vector(type, 4, 64, 14336, 2, false).args;
    EXPECT_EQ(args.stages, 4u);
    EXPECT_EQ(args.tiles_per_block, 4u);
    check(type, {4, 64, 14336, kF32, kF32, 2});
  }
}

// Large k: two blocks share it, several tiles, fewer records for the second.
TEST_P(HopperVector, TwoBlocksShareK) {
  const DType type = GetParam();
  check(type, {1, 70, whole(type, 8192 + 32), kF32, kF32, 4});
  check(type, {1, 70, whole(type, 8192 + 160), kF32, kF32, 4});  // the last record is a stage of its own
  check(type, {3, 33, 8192, kF16, kF16, 2});
  EXPECT_EQ(plan_hopper_vector(type, 1, 70, 8192, 4, false).cluster, 2u);
  EXPECT_EQ(plan_hopper_vector(type, 1, 70, 8192, 4, false).grid, 4u);
  EXPECT_EQ(plan_hopper_vector(type, 1, 70, 7168, 4, false).cluster, 1u);
}

/// Every code's two operands are its value together, in every place of a unit.
template <class F>
void check_look_up(const std::int8_t (&values)[16]) {
  std::vector<std::uint32_t> unit(256);
  std::mt19937 random(3);
  for (std::uint32_t& word : unit) word = static_cast<std::uint32_t>(random());
  const typename F::Codes::Constants constants;
  std::set<std::uint32_t> seen;
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    typename F::Codes codes;
    codes.load(reinterpret_cast<const std::uint8_t*>(unit.data()), nullptr, lane);
    for (int s = 0; s < 8; ++s)
      for (std::uint32_t i = 0; i < 8; ++i) {
        const std::uint32_t word = unit[s / 4 * 128 + lane * 4 + s % 4];
        const Operands first = codes.step(s, constants), second = codes.second_step(s, constants);
        const auto byte = [&](const Operands& of) {
          return static_cast<std::int8_t>((i < 4 ? of.low : of.high) >> i % 4 * 8);
        };
        const std::uint32_t code = word >> i * 4 & 15;
        seen.insert(code);
        EXPECT_EQ(byte(first) + byte(second), values[code]) << code;
      }
  }
  EXPECT_EQ(seen.size(), 16u);
}
TEST(HopperVectorFormats, LookUpsOfAllCodes) {
  check_look_up<vector_formats::iq4_nl>(quant::kIq4Values);
  check_look_up<vector_formats::iq4_xs>(quant::kIq4Values);
  check_look_up<vector_formats::mxfp4>(quant::kE2m1Doubled);
}

TEST(HopperVectorFormats, AllExponentsOfMxfp4) {
  std::uint8_t rows[64] = {};
  for (std::uint32_t e = 0; e < 256; ++e) {
    std::memset(rows, static_cast<int>(e), sizeof rows);
    Terms<1> terms;
    RowsE8M0::terms({}, rows, 5, 0, 2, terms, {});
    // 255 is no number in OCP's text, and infinity in MLX.
    EXPECT_EQ(terms.scale[0][0] * RowsE8M0::kOfX,
              e == 255 ? std::numeric_limits<float>::infinity() : quant::e8m0_half(static_cast<std::uint8_t>(e)))
        << e;
    EXPECT_EQ(terms.scale[0][1], terms.scale[0][0]);
  }
}

// More stages than the ring has, so that they are filled again.
TEST(HopperVectorRing, GoesRound) {
  check(DType::q4_0, {1, 100, 4096});
  check(DType::q6_K, {1, 64, 4096});
}

TEST_P(HopperVector, RowsAreTheSameBitsInAnyCompany) {
  const DType type = GetParam();
  const std::int64_t k = whole(type, 1120);
  const Case four{4, 21, k, kF32, kF32, 1, true};
  const Problem problem(type, four);
  const std::vector<float> all = product(type, four, problem);
  const std::vector<float> two = product(type, {2, 21, k, kF32, kF32, 2, true}, problem);
  const std::vector<float> one = product(type, {1, 21, k, kF32, kF32, 1, true}, problem);
  EXPECT_EQ(two, std::vector<float>(all.begin(), all.begin() + 42));
  EXPECT_EQ(one, std::vector<float>(all.begin(), all.begin() + 21));
  expect_near(all, problem);
}

// A few values outweigh their block by far, in the worst case with weights of zero: the others keep what f16 has.
TEST_P(HopperVector, OutliersLeaveTheirBlockIntact) {
  const DType type = GetParam();
  struct Outlier {
    std::size_t at;
    float value;
  };
  const std::vector<std::vector<Outlier>> cases = {
      {{5, 0x1p20f}},
      {{5, 0x1p20f}, {9, 0x1.8p19f}},   // in two of the lanes that have eight values each, however x lies
      {{0, -0x1.4p19f}, {1, 0x1p20f}},  // in one
      {{2, 0x1.cp19f}, {3, 0x1p20f}, {16, -0x1.8p19f}, {31, 0x1.cp19f}}};
  for (const std::uint32_t x_type : {kF32, kBf16}) {
    for (const std::int64_t m : {1, 2, 4}) {
      for (const std::vector<Outlier>& outliers : cases) {
        if (x_type == kBf16 && m != 1) continue;
        Problem problem(type, {m, 16, 256, x_type});
        std::mt19937 random(9);
        std::uniform_real_distribution<float> uniform(-1, 1);
        for (float& x : problem.x) x = uniform(random);
        const std::vector<float> calm = product(type, problem.c, problem);
        float* const block = &problem.x[problem.x.size() - 256 + 64];  // in the last row
        for (const Outlier& o : outliers) block[o.at] = 0;
        const std::vector<float> without = product(type, problem.c, problem);
        for (const Outlier& o : outliers) block[o.at] = o.value;
        const std::vector<float> with = product(type, problem.c, problem);
        for (std::size_t i = 0; i < with.size(); ++i) {
          if (i + 16 < with.size()) {
            EXPECT_EQ(with[i], calm[i]);
            continue;
          }
          // What the outliers themselves add, d * q and a minimum by themselves, is known to f32's precision.
          double largest = 0, added = 0;
          for (std::size_t j = 0; j < 256; ++j) largest = std::max(largest, std::fabs(problem.weight(i % 16, j)));
          for (const Outlier& o : outliers) added += problem.weight(i % 16, 64 + o.at) * static_cast<double>(block[o.at]);
          EXPECT_NEAR(static_cast<double>(with[i]) - static_cast<double>(without[i]), added,
                      2e-4 * problem.row_size(i % 16) + 4e-7 * 0x1p20 * static_cast<double>(outliers.size()) * largest)
              << "x " << x_type << " m " << m << " outliers " << outliers.size() << ", " << i;
        }
      }
    }
  }
}

TEST_P(HopperVector, WhatIsNotFiniteKeepsToItsRow) {
  const DType type = GetParam();
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const Case c{2, 17, 256};
    Problem problem(type, c);
    problem.x[7] = bad;
    const std::vector<float> y = product(type, c, problem);
    ASSERT_EQ(y.size(), 34u);
    for (std::size_t i = 0; i < 17; ++i) EXPECT_TRUE(std::isnan(y[i])) << i;
    expect_near(y, problem, 17);
  }
}

double activation(double gate, std::uint32_t which) {
  const double z = which == ops::kHopperVectorSilu
                       ? gate
                       : 2 * 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate);
  return gate / (1 + std::exp(-z));
}

/// The kernel with a norm of x in front, a gate and a residual, which y takes the place of, behind.
/// is_even: values of x of one size, so that every warp's part of the norm's sum counts and gates are small.
void check_fused(DType type, const Case& c, bool norm, std::uint32_t gate, bool is_even = false) {
  SCOPED_TRACE(testing::Message() << to_string(type) << " m " << c.m << " n " << c.n << " k " << c.k << " y "
                                  << c.y_type << " norm " << norm << " gate " << gate);
  const Problem problem(type, c);
  HopperVectorPlan plan =
      plan_hopper_vector(type, c.m, c.n, c.k, c.multiprocessors, c.batch_invariant, gate != 0);
  ASSERT_TRUE(plan);
  HopperVectorArgs& args = plan.args;
  const std::int64_t columns = gate != 0 ? c.n / 2 : c.n;
  ASSERT_EQ(args.n, columns);
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto k_elems = static_cast<std::size_t>(c.k);
  std::vector<uint4> x_memory((static_cast<std::size_t>(c.m) * k_elems + 3) / 4),
      norm_memory((k_elems + 3) / 4);
  auto *x = reinterpret_cast<float*>(x_memory.data()), *w = reinterpret_cast<float*>(norm_memory.data());
  std::copy(problem.x.begin(), problem.x.end(), x);
  for (std::size_t i = 0; is_even && i < problem.x.size(); ++i) x[i] = uniform(random);
  for (std::size_t i = 0; i < k_elems; ++i) w[i] = uniform(random) + 1.5f;
  const std::int64_t y_stride = columns + 3;
  std::vector<std::uint8_t> y(static_cast<std::size_t>(c.m * y_stride) * 4, 0xcd);
  const std::uint32_t y_bytes = bytes_of(c.y_type);
  const auto y_at = [&](std::int64_t m, std::int64_t n) {
    return &y[static_cast<std::size_t>(m * y_stride + n) * y_bytes];
  };
  std::vector<double> residual;
  for (std::int64_t m = 0; m < c.m; ++m)
    for (std::int64_t n = 0; n < columns; ++n) {
      put(y_at(m, n), c.y_type, uniform(random));
      residual.push_back(static_cast<double>(get(y_at(m, n), c.y_type)));
    }
  constexpr float kEps = 0.01f;
  args.records = {reinterpret_cast<const std::uint8_t*>(problem.records.data())};
  args.x = {x}, args.y = {y.data()}, args.residual = {y.data()};
  args.x_type = kF32, args.y_type = c.y_type;
  args.x_stride = c.k, args.y_stride = args.residual_stride = y_stride;
  if (norm) args.norm = {w}, args.norm_eps = kEps;
  args.activation = gate;
  ASSERT_EQ(run_plan(type, plan), "");

  const double rounding = c.y_type == kF32 ? 0x1p-23 : c.y_type == kF16 ? 0x1p-10 : 0x1p-7;
  for (std::int64_t m = 0; m < c.m; ++m) {
    // x as the kernel rounds it.
    std::vector<float> row(x + static_cast<std::size_t>(m) * k_elems,
                           x + static_cast<std::size_t>(m + 1) * k_elems);
    double squares = 0;
    for (std::size_t i = 0; i < k_elems; ++i) {
      squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
      if (norm) row[i] *= w[i];
    }
    std::vector<double> near_row(k_elems);
    for (std::size_t i = 0; i < k_elems; i += 32) round_block(&row[i], kF32, &near_row[i]);
    const double factor =
        norm ? 1 / std::sqrt(squares / static_cast<double>(c.k) + static_cast<double>(kEps)) : 1;
    struct Sum {
      double value = 0, error = 0;
    };
    const auto sum_of = [&](std::int64_t n) {
      Sum sum;
      for (std::size_t i = 0; i < k_elems; ++i) {
        const double product = problem.weight(static_cast<std::size_t>(n), i) * near_row[i] * factor;
        sum.value += product, sum.error += std::fabs(product) * 3e-7;
      }
      sum.error += std::fabs(sum.value) * 1e-6;  // the factor's own roundings
      return sum;
    };
    for (std::int64_t n = 0; n < columns; ++n) {
      Sum sum = sum_of(n);
      if (gate != 0) {
        const Sum up = sum_of(n + columns);
        const double act = activation(sum.value, gate);
        // The exponential's error grows with its argument.
        const double act_error =
            1.2 * sum.error + std::fabs(act) * 4e-7 * std::min(std::fabs(sum.value) + 2, 100.0);
        sum = {act * up.value, act_error * (std::fabs(up.value) + up.error) + std::fabs(act) * up.error};
      }
      const double wanted = sum.value + residual[static_cast<std::size_t>(m * columns + n)];
      ASSERT_LE(std::fabs(static_cast<double>(get(y_at(m, n), c.y_type)) - wanted),
                sum.error + rounding * (std::fabs(wanted) + std::fabs(sum.value) + 1))
          << m << " " << n;
    }
    for (std::int64_t n = columns; n < y_stride; ++n)
      ASSERT_EQ(std::memcmp(y_at(m, n), "\xcd\xcd\xcd\xcd", y_bytes), 0);
  }
}

TEST_P(HopperVector, NormGateAndResidual) {
  const DType type = GetParam();
  check_fused(type, {1, 40, whole(type, 704)}, true, 0);
  check_fused(type, {2, 96, 256, kF32, kF16, 2}, true, ops::kHopperVectorSilu);
  check_fused(type, {3, 64, 256, kF32, kF32, 3}, false, ops::kHopperVectorGelu);
  check_fused(type, {4, 32, whole(type, 288), kF32, kBf16}, true, ops::kHopperVectorGelu);
  check_fused(type, {1, 32, 2048}, true, ops::kHopperVectorGelu, true);
  check_fused(type, {2, 32, whole(type, 1056)}, true, ops::kHopperVectorSilu, true);
}

TEST(HopperVectorRing, GoesRoundWithGates) {
  check_fused(DType::q4_K, {1, 96, 4096}, true, ops::kHopperVectorSilu, true);
  check_fused(DType::q4_K, {1, 96, 8448, kF32, kF32, 2}, true, ops::kHopperVectorSilu, true);
  check_fused(DType::q6_K, {2, 96, 8192, kF32, kF32, 2}, true, ops::kHopperVectorGelu, true);
}

TEST(HopperVectorPlan, GatesAreWithTheirProducts) {
  // Both halves of a gate's pair of tiles are a block's.
  for (const std::int64_t n : {32, 64, 1024, 28672, 27392}) {
    const HopperVectorPlan plan = plan_hopper_vector(DType::q4_0, 1, n, 4096, 132, false, true);
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan.args.tiles_per_block % 2, 0u);
    EXPECT_EQ(plan.args.half_tiles * 32, n);
    EXPECT_EQ(plan.args.n * 2, n);
    EXPECT_GE(plan.grid * plan.args.tiles_per_block, plan.args.tiles);
    EXPECT_LT((plan.grid - 1) * plan.args.tiles_per_block, plan.args.tiles);
  }
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 1, 4112, 4096, 132, false, true));
}

INSTANTIATE_TEST_SUITE_P(Types, HopperVector, testing::ValuesIn(kTypes),
                         [](const auto& of) { return std::string(to_string(of.param)); });

TEST(HopperVectorPlan, TakesTheSmallestInstanceThatHoldsTheRows) {
  const std::uint32_t rows[] = {1, 2, 4, 4};
  for (const DType type : kTypes)
    for (std::int64_t m = 1; m <= 4; ++m) {
      const HopperVectorPlan plan = plan_hopper_vector(type, m, 4096, 4096, 132, false);
      EXPECT_EQ(plan.rows, rows[m - 1]);
      EXPECT_EQ(plan.kernel,
                "matmul_hopper_vector" + std::to_string(plan.rows) + "_" + std::string(to_string(type)));
    }
}

TEST(HopperVectorPlan, IsWithinItsLimits) {
  for (const DType type : kTypes)
    for (const std::int64_t k : {32, 256, 704, 2880, 4096, 7168, 7680, 11008, 14336, 28672, 57344, 100096})
      for (const std::int64_t n : {1, 16, 17, 1000, 4096, 14336, 128256})
        for (const std::int64_t m : {1, 2, 4}) {
          if (k % block_elems(type) != 0) continue;
          const HopperVectorPlan plan = plan_hopper_vector(type, m, n, k, 132, false);
          EXPECT_EQ(bool(plan), m * k <= 4 * 14336) << to_string(type) << " " << m << " " << k;
          if (!plan) continue;
          const HopperVectorArgs& a = plan.args;
          EXPECT_EQ(plan.cluster, k > 7168 ? 2u : 1u);
          EXPECT_EQ(plan.cluster, a.parts);
          const quant::RecordFormat format = quant::record_format(type);
          EXPECT_EQ(a.tile_bytes, format.tile_bytes(k));
          const std::uint32_t halves = format.elems / 128, stage_bytes = a.stage_records * format.bytes();
          EXPECT_EQ(a.stage_bytes, stage_bytes);
          const auto tile_records = static_cast<std::uint32_t>(quant::record_grid(format, n, k).tile_records);
          const std::uint32_t part_records = (tile_records + a.parts - 1) / a.parts;
          std::uint32_t bytes = 0, units = 0, k_end = 0;
          for (std::uint32_t i = 0; i < a.parts; ++i) {
            const ops::HopperVectorPart& part = a.part[i];
            EXPECT_EQ(part.first, i * part_records);
            EXPECT_EQ(part.first_k, k_end);
            EXPECT_GT(part.last_bytes, 0u);
            EXPECT_LE(part.last_bytes, stage_bytes);
            EXPECT_EQ(part.last_bytes % 16, 0u);
            EXPECT_EQ(part.next_tile * part.stages + part.next_stage, a.prefetch);
            EXPECT_LT(part.next_stage, part.stages);
            EXPECT_TRUE(part.rotates == 0 || a.prefetch <= part.stages);  // the first requests' slots are in order
            bytes += (part.stages - 1) * stage_bytes + part.last_bytes, units += part.units, k_end = part.end_k;
          }
          EXPECT_EQ(bytes, a.tile_bytes);
          EXPECT_EQ(units, tile_records * halves);
          EXPECT_EQ(k_end, k);
          EXPECT_EQ(plan.shared_bytes, 208896u);
          EXPECT_LE(a.at.end, plan.shared_bytes);
          EXPECT_LE(a.stages * stage_bytes, a.at.x);
          EXPECT_GE((a.at.meta - a.at.x) * a.parts, plan.rows * 2 * k);
          EXPECT_GE((a.at.lows - a.at.low) * a.parts, plan.rows * 2 * k);
          EXPECT_EQ((a.at.x | a.at.meta | a.at.low | a.at.partial | a.at.other) % 16 + a.at.barriers % 8, 0u);
          EXPECT_GE(a.stages, 2u);
          const std::uint32_t teams = ops::hopper_vector_teams(type), team_warps = 16 / teams;
          EXPECT_EQ(a.stages % teams, 0u);
          EXPECT_GE(a.in_flight, a.prefetch);
          const std::uint32_t most_in_flight = teams > 2 ? a.stages - 1 : a.stages;
          EXPECT_LE(a.in_flight, most_in_flight);
          // A warp's units are the same ones in any geometry.
          EXPECT_TRUE(a.stage_records * halves % team_warps == 0 || a.stage_records == part_records);
          EXPECT_LE(a.stage_records * halves, ops::kHopperVectorStageUnits);
          if (a.stage_records * halves > team_warps && a.stage_records != part_records) {
            EXPECT_EQ(a.stage_records * halves % (2 * team_warps), 0u);  // pairs of units
          }
          if (part_records * halves >= 16) {
            EXPECT_GE(a.stages * stage_bytes, 36u << 10);
            const bool is_long = teams == 2 && a.tiles_per_block * a.part[0].stages >= 24;
            // To half a stage, but two of them at least.
            const std::uint32_t wanted = (is_long ? 52 : 36) << 10, bytes_first = a.prefetch * stage_bytes;
            if (a.prefetch < most_in_flight) { EXPECT_GE(bytes_first + stage_bytes / 2, wanted); }
            if (a.prefetch > 2) { EXPECT_LE(bytes_first, wanted + stage_bytes / 2); }
          }
          EXPECT_EQ(a.tiles, (n + 15) / 16);
          const std::uint32_t clusters = plan.grid / plan.cluster;
          EXPECT_EQ(plan.grid % plan.cluster, 0u);
          EXPECT_GE(clusters * a.tiles_per_block, a.tiles);
          EXPECT_LT((clusters - 1) * a.tiles_per_block, a.tiles);
          EXPECT_LE(plan.grid, 132u);
        }
}

TEST(HopperVectorPlan, RefusesWhatItCannotDo) {
  EXPECT_TRUE(plan_hopper_vector(DType::q4_0, 1, 1, 32, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::f16, 1, 64, 64, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 0, 64, 64, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 5, 64, 64, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 1, 0, 64, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 1, 64, 0, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 1, 64, 48, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_K, 1, 64, 128, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 1, 64, std::int64_t{1} << 40, 132, false));
  EXPECT_FALSE(plan_hopper_vector(DType::q4_0, 1, std::int64_t{1} << 40, 64, 132, false));
}

TEST(HopperVectorPlan, BatchInvarianceIsOneInstance) {
  for (std::int64_t m = 1; m <= 4; ++m) {
    const HopperVectorPlan plan = plan_hopper_vector(DType::q4_K, m, 4096, 4096, 132, true);
    EXPECT_EQ(plan.kernel, "matmul_hopper_vector4_q4_K");
    EXPECT_EQ(plan.args.m, m);
  }
  EXPECT_FALSE(plan_hopper_vector(DType::q4_K, 5, 4096, 4096, 132, true));
  for (std::int64_t m = 1; m <= 2; ++m)
    EXPECT_EQ(plan_hopper_vector(DType::q4_K, m, 4096, 28672, 132, true).rows, 2u);
  EXPECT_FALSE(plan_hopper_vector(DType::q4_K, 3, 4096, 28672, 132, true));
}

}  // namespace
