// Launches after each other, beside each other, and of wrong sizes.

#include <thread>

#include "gtest/gtest.h"
#include "tests/simt/launch.h"

namespace mlxn::test::launches_suite {
namespace {

TEST(Simt, RunsOnAfterEveryKindOfFault) {
  TestLaunch good(global_hand_over, 1, 192);
  good.grid = {3, 1, 1};
  for (const Kernel& faulty : {barrier_skipped, collective_skipped, race_store_store, store_at, simd_barrier_skipped, race_global_in_group}) {
    TestLaunch bad(faulty);
    bad.args.at = 64;
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      EXPECT_FALSE(bad.run(seed));
      const Result<void> result = good.run(seed);
      ASSERT_TRUE(result) << faulty.name << ": " << result.error().message();
      for (std::size_t i = 0; i < good.y.size(); ++i) EXPECT_EQ(good.y[i], static_cast<float>(63 - (i % 64 ^ 1)));
    }
  }
}

TEST(Simt, HostThreadsLaunchAtTheSameTime) {
  const auto work = [](std::uint32_t which, std::string& failure) {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      TestLaunch sums(prefix_sums, 1, 1, 128), bad(race_in_simd_group);
      sums.grid = {2, 1, 1};
      sums.z.assign(128, which);
      Result<void> result = sums.run(seed);
      if (!result) failure = result.error().message();
      for (std::uint32_t i = 0; i < 128; ++i) {
        if (sums.z[i] != which * (i % 32 + 1)) failure = "a wrong sum";
      }
      if (bad.run(seed)) failure = "an undetected race";
    }
  };
  std::string failures[4];
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < 4; ++i) threads.emplace_back(work, i + 1, std::ref(failures[i]));
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
}

TEST(Simt, WrongSizes) {
  const auto code = [](std::uint32_t threads, gpu::Grid grid) {
    TestLaunch launch(marks_groups);
    launch.kernel.threads = threads;
    launch.grid = grid;
    const Result<void> result = launch.run(0);
    return result ? ErrorCode::internal : result.error().code();
  };
  EXPECT_EQ(code(0, {1, 1, 1}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(33, {1, 1, 1}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(1056, {1, 1, 1}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(32, {1, 0, 1}), ErrorCode::invalid_argument);
  EXPECT_EQ(code(32, {65536, 65536, 1}), ErrorCode::invalid_argument);
  TestLaunch many(marks_groups);
  std::vector<float> values(1000);
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const auto* const begin = reinterpret_cast<const std::byte*>(&values[i]);
    many.more.push_back({begin, begin + 4, Access::in, 3});
  }
  const Result<void> result = many.run(0);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::limit_exceeded);
}

TEST(Simt, FullGroups) {
  TestLaunch launch(marks_groups, 1, 1, 3);
  launch.kernel.threads = 1024;
  launch.grid = {3, 1, 1};
  ASSERT_TRUE(launch.run(1));
  EXPECT_EQ(launch.z, (std::vector<std::uint32_t>{0, 1, 2}));
}

}  // namespace
}  // namespace mlxn::test::launches_suite
