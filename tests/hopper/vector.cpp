// The few-token kernel's source on the host, against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cuda_on_host.h"
//
#include "ops/matmul/cuda_vector_sm90a.cuh"
#include "quant/hopper_records.h"

namespace {

using namespace mlxn::sm90;

struct Shape {
  std::uint32_t m, n, k;
  std::uint32_t tiles_per_block, splits, stage_records, stages, prefetch;
};

std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) { return (a + b - 1) / b; }

struct Problem {
  std::vector<std::uint8_t> blocks;
  std::vector<float> x;
  std::vector<double> y, magnitude;

  Problem(const Shape& s, bool is_f16)
      : blocks(std::size_t{s.n} * (s.k / 32) * 18),
        x(std::size_t{s.m} * s.k),
        y(s.m * s.n),
        magnitude(y.size()) {
    std::mt19937 random(s.m + s.n + s.k);
    for (auto& byte : blocks) byte = static_cast<std::uint8_t>(random());
    for (std::size_t b = 0; b < blocks.size(); b += 18) {
      const std::uint16_t d = static_cast<std::uint16_t>((random() & 0x8000) | (0x2000 + random() % 0x800));
      std::memcpy(&blocks[b], &d, 2);
    }
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = normal(random) * (i / 32 % 5 == 0 ? 100.0f : 1.0f);
      if (is_f16) x[i] = f16_to_f32(f32_to_f16(x[i]));
    }
    for (std::uint32_t token = 0; token < s.m; ++token)
      for (std::uint32_t row = 0; row < s.n; ++row) {
        double sum = 0, size = 0;
        for (std::uint32_t k = 0; k < s.k; ++k) {
          const std::uint8_t* block = &blocks[(std::size_t{row} * (s.k / 32) + k / 32) * 18];
          std::uint16_t d;
          std::memcpy(&d, block, 2);
          const int q = block[2 + k % 16] >> (k % 32 / 16 * 4) & 15;
          const double product = static_cast<double>(f16_to_f32(d)) * (q - 8) *
                                 static_cast<double>(x[std::size_t{token} * s.k + k]);
          sum += product;
          size += std::fabs(product);
        }
        y[token * s.n + row] = sum;
        magnitude[token * s.n + row] = size;
      }
  }
};

template <class Math, class X, int kWarps>
void check(const Shape& s, double limit) {
  SCOPED_TRACE(testing::Message() << "m " << s.m << " n " << s.n << " k " << s.k << " splits " << s.splits
                                  << " stages " << s.stages << " of " << s.stage_records << " prefetch "
                                  << s.prefetch << " tiles " << s.tiles_per_block);
  const Problem problem(s, X::kBytes == 2);
  const mlxn::quant::RecordShape shape(s.n, s.k);
  std::vector<std::uint8_t> records(shape.records() * kRecordBytes + 16);
  std::uint8_t* base = records.data() + 15 - (reinterpret_cast<std::uintptr_t>(records.data()) + 15) % 16;
  mlxn::quant::q4_0_to_records(problem.blocks.data(), s.n, s.k, base);
  std::vector<uint4> x(problem.x.size() / 4 + 1);
  for (std::size_t i = 0; i < problem.x.size(); ++i) {
    if (X::kBytes == 2)
      reinterpret_cast<std::uint16_t*>(x.data())[i] = f32_to_f16(problem.x[i]);
    else
      reinterpret_cast<float*>(x.data())[i] = problem.x[i];
  }
  VectorArgs args{};
  args.m = s.m, args.n = s.n, args.k = s.k, args.x_stride = s.k;
  args.x = x.data(), args.records = base;
  args.tiles = static_cast<std::uint32_t>(shape.tiles),
  args.tile_records = static_cast<std::uint32_t>(shape.tile_records);
  args.split_records = ceil_div(args.tile_records, s.splits);
  args.splits = ceil_div(args.tile_records, args.split_records);
  args.tiles_per_block = s.tiles_per_block, args.stage_records = s.stage_records;
  args.stages = s.stages, args.prefetch = s.prefetch, args.early_launch = 1;
  std::vector<float> y(problem.y.size(), std::numeric_limits<float>::quiet_NaN());
  std::vector<float4> workspace(std::size_t{args.splits} * s.m * args.tiles * 4, float4{NAN, NAN, NAN, NAN});
  std::vector<std::uint32_t> counters(args.tiles);
  args.y = y.data(), args.workspace = &workspace.data()->x, args.counters = counters.data();
  ASSERT_LE((vector_shared<Math, kWarps>(s.stages, s.stage_records, args.split_records).bytes),
            cuda_on_host::kSharedBytes);
  const std::string error =
      cuda_on_host::run(ceil_div(args.tiles, s.tiles_per_block) * args.splits, (kWarps + 2) * 32,
                        [&] { vector_kernel<Math, X, kWarps>(args); });
  ASSERT_EQ(error, "");
  for (std::size_t i = 0; i < y.size(); ++i)
    ASSERT_LE(std::fabs(static_cast<double>(y[i]) - problem.y[i]), limit * problem.magnitude[i])
        << "element " << i;
  for (std::uint32_t count : counters) EXPECT_EQ(count, 0u);
}

// A 16-bit limb carries an error of 2^-15 of the block's largest, two limbs of 2^-24 or so.
constexpr double kOneLimb = 3e-5, kTwoLimbs = 1e-6, kHalfExact = 1e-6, kHalf = 5e-4;

TEST(HopperVector, IntegersOneToken) {
  check<IntegerMath<1, 1>, XF16, 2>({1, 48, 512, 2, 1, 2, 3, 2}, kOneLimb);
  check<IntegerMath<1, 1>, XF32, 3>({1, 33, 1056, 1, 1, 4, 2, 1}, kOneLimb);
  check<IntegerMath<1, 2>, XF32, 2>({1, 16, 544, 1, 1, 5, 4, 8}, kTwoLimbs);
}

TEST(HopperVector, IntegersFewTokens) {
  check<IntegerMath<2, 1>, XF16, 2>({2, 32, 256, 2, 1, 2, 2, 1}, kOneLimb);
  check<IntegerMath<2, 2>, XF32, 2>({2, 32, 288, 2, 1, 1, 2, 1}, kTwoLimbs);
  check<IntegerMath<4, 1>, XF16, 2>({3, 32, 384, 1, 1, 3, 2, 2}, kOneLimb);
  check<IntegerMath<4, 2>, XF32, 1>({4, 16, 256, 1, 1, 2, 2, 2}, kTwoLimbs);
  check<IntegerMath<8, 1>, XF16, 2>({7, 40, 256, 3, 1, 2, 2, 2}, kOneLimb);
  check<IntegerMath<16, 1>, XF16, 2>({16, 16, 256, 1, 1, 2, 2, 2}, kOneLimb);
}

TEST(HopperVector, Halves) {
  check<HalfMath<8>, XF16, 2>({5, 40, 416, 2, 1, 3, 2, 1}, kHalfExact);
  check<HalfMath<8>, XF32, 2>({8, 16, 256, 1, 1, 2, 2, 1}, kHalf);
  check<HalfMath<16>, XF16, 2>({11, 32, 256, 1, 1, 2, 2, 1}, kHalfExact);
  check<HalfMath<32>, XF16, 2>({32, 16, 128, 1, 1, 1, 1, 1}, kHalfExact);
}

TEST(HopperVector, SplitsAndRings) {
  for (std::uint32_t stages : {1u, 2u, 3u, 5u})
    for (std::uint32_t splits : {1u, 2u, 3u, 6u})
      check<IntegerMath<1, 1>, XF16, 2>({1, 100, 736, 4, splits, 2, stages, stages == 3 ? 0u : 2u}, kOneLimb);
  check<HalfMath<8>, XF16, 3>({2, 80, 1024, 3, 3, 2, 2, 1}, kHalfExact);
}

}  // namespace
