// Kernels without faults: their results under many seeds.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "gtest/gtest.h"
#include "mlxn/dtype.h"
#include "tests/simt/launch.h"

namespace mlxn::test::correct_suite {
namespace {

constexpr std::uint64_t kSeeds = 40;

/// Runs copies of a launch with many seeds, each of which `check` looks at.
template <class Check>
void with_seeds(const TestLaunch& launch, Check&& check) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    TestLaunch copy = launch;
    copy.bind();
    const Result<void> result = copy.run(seed);
    ASSERT_TRUE(result) << result.error().message();
    check(copy);
  }
}

TEST(Simt, BarriersInLoopsAndGroupsThatEndEarly) {
  constexpr std::uint32_t kGroups = 5, kRounds = 4;
  TestLaunch launch(sums_in_loop, 96 * kGroups, kGroups);
  launch.grid = {kGroups + 3, 1, 1};
  launch.args.n = kGroups;
  launch.args.option = kRounds;
  for (std::size_t i = 0; i < launch.x.size(); ++i) launch.x[i] = static_cast<float>(i * 37 % 101) - 50.0f;
  with_seeds(launch, [&](const TestLaunch& done) {
    for (std::size_t group = 0; group < kGroups; ++group) {
      float wanted = 0.0f;
      for (std::uint32_t round = 1; round <= kRounds; ++round) {
        float sum = 0.0f, max = -1e30f;
        for (std::size_t i = group * 96; i < (group + 1) * 96; ++i) {
          sum += launch.x[i] * static_cast<float>(round);
          max = std::max(max, launch.x[i] * static_cast<float>(round));
        }
        wanted += sum + max;  // small whole numbers: exact in any order
      }
      EXPECT_EQ(done.y[group], wanted);
    }
  });
}

TEST(Simt, PrefixSums) {
  TestLaunch launch(prefix_sums, 1, 1, 192);
  launch.grid = {3, 1, 1};
  for (std::size_t i = 0; i < launch.z.size(); ++i) launch.z[i] = static_cast<std::uint32_t>(i * i % 17);
  with_seeds(launch, [&](const TestLaunch& done) {
    for (std::size_t i = 0; i < launch.z.size(); ++i) {
      const auto begin = launch.z.begin() + static_cast<std::ptrdiff_t>(i / 32 * 32);
      EXPECT_EQ(done.z[i], std::accumulate(begin, launch.z.begin() + static_cast<std::ptrdiff_t>(i) + 1, 0u));
    }
  });
}

TEST(Simt, Shuffles) {
  TestLaunch launch(rotates, 128, 128);
  launch.grid = {2, 1, 1};
  launch.args.at = 5;
  for (std::size_t i = 0; i < launch.x.size(); ++i) launch.x[i] = static_cast<float>(i);
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < done.y.size(); ++i) EXPECT_EQ(done.y[i], static_cast<float>(i / 32 * 32 + (i % 32 + 5) % 32 + (i ^ 4)));
  });
}

TEST(Simt, BallotsOfSomeSimdGroups) {
  TestLaunch launch(ballots, 128, 1, 128);
  for (std::size_t i = 0; i < 128; ++i) launch.x[i] = i * 7 % 5 < 2 ? 1.0f : -1.0f;
  with_seeds(launch, [&](const TestLaunch& done) {
    for (std::size_t i = 0; i < 128; ++i) {
      std::uint32_t below = 0;
      for (std::size_t j = i / 32 * 32; j < i; ++j) below += launch.x[j] > 0.0f;
      EXPECT_EQ(done.z[i], i / 32 % 2 == 1 ? 0 : below);
    }
  });
}

TEST(Simt, SimdGroupsAtTheirOwnPace) {
  TestLaunch launch(simd_exchange, 128, 128);
  launch.args.n = 3;
  std::iota(launch.x.begin(), launch.x.end(), 0.0f);
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < 128; ++i) EXPECT_EQ(done.y[i], static_cast<float>(i / 32 * 32 + (i + 3 + i / 32) % 32));
  });
}

TEST(Simt, BytesOfNeighboursInOneWord) {
  for (const std::int64_t shift : {0, 1, 2, 3}) {
    TestLaunch launch(writes_bytes, 1, 33);
    launch.grid = {4, 1, 1};
    launch.args.at = shift;
    with_seeds(launch, [&](const TestLaunch& done) {
      const auto* const bytes = reinterpret_cast<const std::uint8_t*>(done.y.data()) + shift;
      for (std::size_t i = 0; i < 4 * 31; ++i) EXPECT_EQ(bytes[i], i / 31 * 32 + 30 - i % 31);
    });
  }
}

TEST(Simt, HalvesOfNeighboursInOneWord) {
  TestLaunch launch(writes_halves, 128, 64);
  launch.grid = {2, 1, 1};
  std::iota(launch.x.begin(), launch.x.end(), 1.0f);
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < 128; ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, reinterpret_cast<const std::byte*>(done.y.data()) + 2 * i, 2);
      EXPECT_EQ(static_cast<float>(f16::from_bits(bits)), 4.0f * static_cast<float>(i + 1 + (i ^ 1) + 1));
    }
  });
}

TEST(Simt, AtomicAdditionsOfAllGroups) {
  TestLaunch launch(counts, 1, 1, 5 * 64 + 4);
  launch.grid = {5, 1, 1};
  launch.args.n = 5 * 64;
  std::uint32_t wanted[4] = {};
  for (std::uint32_t i = 0; i < 5 * 64; ++i) {
    launch.z[i] = i * i % 7;
    wanted[launch.z[i] % 4] += 2;
  }
  with_seeds(launch, [&](const TestLaunch& done) {
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(done.z[5 * 64 + i], wanted[i]);
  });
}

TEST(Simt, GlobalMemoryBetweenThreadsOfAGroup) {
  TestLaunch launch(global_hand_over, 1, 192);
  launch.grid = {3, 1, 1};
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < done.y.size(); ++i) EXPECT_EQ(done.y[i], static_cast<float>(63 - (i % 64 ^ 1)));
  });
}

TEST(Simt, SharedWordsUsedAnewAsBytes) {
  TestLaunch launch(reuses_shared, 1, 1, 96);
  launch.grid = {3, 1, 1};
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < done.z.size(); ++i) {
      for (std::size_t byte = 0; byte < 4; ++byte) {
        const std::size_t at = i % 32 * 4 + byte;  // in the group's shared memory
        EXPECT_EQ(done.z[i] >> 8 * byte & 0xff, 31 - at % 32 + at / 32);
      }
    }
  });
}

TEST(Simt, TablesOfTheProgram) {
  TestLaunch launch(uses_table, 2, 32, 32);
  launch.x[1] = 0.5f;
  std::iota(launch.z.begin(), launch.z.end(), 0u);
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(done.y[i], std::exp2(static_cast<float>(i % 4)) + (i % 2 == 1 ? 0.5f : 0.0f));
  });
}

TEST(Simt, StructsOfOddSizes) {
  TestLaunch launch(reads_struct, 48, 1, 32);
  auto* const halves = reinterpret_cast<std::uint16_t*>(launch.x.data());
  for (std::size_t i = 0; i < 96; ++i) halves[i] = static_cast<std::uint16_t>(i * 100);
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(done.z[i], 100 * (9 * (31 - i) + 3));
  });
}

TEST(Simt, GroupsOfAGrid) {
  TestLaunch launch(marks_groups, 1, 1, 3 * 4 * 5);
  launch.grid = {3, 4, 5};
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::uint32_t i = 0; i < 60; ++i) EXPECT_EQ(done.z[i], i % 3 | (i / 3 % 4) << 8 | (i / 12) << 16);
  });
}

TEST(Simt, OutputThatIsTheInput) {
  TestLaunch launch(updates_in_place, 100, 100);
  launch.grid = {2, 1, 1};
  launch.args.n = 100;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::iota(launch.y.begin(), launch.y.end(), 0.0f);
    launch.args.x.ptr = launch.y.data();
    launch.more = {TestLaunch::range(launch.y, Access::in, 0)};
    const Result<void> result = launch.run(seed);
    ASSERT_TRUE(result) << result.error().message();
    for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(launch.y[i], 2.0f * static_cast<float>(i));
  }
}

TEST(Simt, AWordThatAllThreadsRead) {
  TestLaunch launch(one_lane_loads, 1, 256);
  launch.grid = {2, 1, 1};
  with_seeds(launch, [](const TestLaunch& done) {
    for (std::size_t i = 0; i < done.y.size(); ++i) EXPECT_EQ(done.y[i], 10.0f + 5.0f * static_cast<float>(i / 128));
  });
}

TEST(Simt, ConversionsInAKernel) {
  TestLaunch launch(conversions, 100, 100);
  launch.grid = {4, 1, 1};
  launch.args.n = 100;
  for (std::size_t i = 0; i < 100; ++i) launch.x[i] = std::exp(static_cast<float>(i) - 50.0f);
  with_seeds(launch, [&](const TestLaunch& done) {
    for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(done.y[i], static_cast<float>(bf16(launch.x[i])));
  });
}

/// The seed decides over the order of groups and threads: the same one over the same, others over others.
TEST(Simt, SeedsShuffle) {
  std::set<std::vector<float>> orders;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    TestLaunch first(depends_on_order, 1, 128), second(depends_on_order, 1, 128);
    first.grid = second.grid = {2, 1, 1};
    ASSERT_TRUE(first.run(seed));
    ASSERT_TRUE(second.run(seed));
    EXPECT_EQ(first.y, second.y);
    std::vector<float> sorted = first.y;
    std::ranges::sort(sorted);
    for (std::size_t i = 0; i < sorted.size(); ++i) EXPECT_EQ(sorted[i], static_cast<float>(i));
    orders.insert(first.y);
  }
  EXPECT_EQ(orders.size(), kSeeds);
  bool second_group_first = false, first_group_first = false;
  for (const std::vector<float>& order : orders) (order[0] < 64.0f ? first_group_first : second_group_first) = true;
  EXPECT_TRUE(first_group_first && second_group_first);
}

}  // namespace
}  // namespace mlxn::test::correct_suite
