// Every detector of the emulator, by a kernel that has the fault.

#include <array>
#include <regex>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/simt/launch.h"

namespace mlxn::test::faults_suite {
namespace {

constexpr std::uint64_t kSeeds = 20;

/// Runs the launch with many seeds; each must end with a text that matches `kernel NAME, group GROUP, thread PATTERN`.
void expect_fault(const TestLaunch& launch, const std::string& group, const std::string& pattern) {
  const std::regex wanted("simt: kernel " + std::string(launch.kernel.name) + ", group " + group + ", thread " + pattern);
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Result<void> result = launch.run(seed);
    ASSERT_FALSE(result) << "seed " << seed;
    const std::string text(result.error().message());
    EXPECT_EQ(result.error().code(), ErrorCode::device) << text;
    EXPECT_TRUE(std::regex_match(text, wanted)) << "seed " << seed << "\n  got    " << text << "\n  wanted " << pattern;
  }
}
void expect_fault(const TestLaunch& launch, const std::string& pattern) { expect_fault(launch, R"(\(0, 0, 0\))", pattern); }

std::string line(int number) { return fmt::format(R"(kernels_faulty\.cpp:{})", number); }
std::string either(int a, int b) { return fmt::format(R"(kernels_faulty\.cpp:(?:{}|{}))", a, b); }

// ---- barriers and collectives

TEST(Simt, BarrierThatAThreadHasPassedBy) {
  for (const std::uint32_t absent : {0u, 13u, 63u}) {
    TestLaunch launch(barrier_skipped);
    launch.args.option = absent;
    expect_fault(launch, fmt::format(R"(\d+: is at the barrier of {}, but thread {} has ended; .* group .*)", line(barrier_skipped_line), absent));
  }
}

TEST(Simt, BarrierNamesTheGroup) {
  TestLaunch launch(barrier_skipped);
  launch.grid = {2, 3, 2};
  expect_fault(launch, R"(\([01], [012], [01]\))", R"(\d+: is at the barrier of .* but thread 0 has ended.*)");
}

TEST(Simt, BarriersAtTwoPlaces) {
  TestLaunch launch(barrier_elsewhere);
  for (std::size_t i = 32; i < 64; ++i) launch.x[i] = 1.0f;
  const auto [first, second] = barrier_elsewhere_lines;
  expect_fault(launch, fmt::format(R"(\d+: is at the barrier of {0}, but thread \d+ is at the barrier of {0}; .*)", either(first, second)));
}

TEST(Simt, BarriersOfTwoGroupSums) {
  TestLaunch launch(barrier_in_groups_sum);
  for (std::size_t i = 32; i < 64; ++i) launch.x[i] = 1.0f;
  const auto [first, second] = barrier_in_groups_sum_lines;
  expect_fault(launch, fmt::format(R"(\d+: is at the barrier of {0}, but thread \d+ is at the barrier of {0}; .*)", either(first, second)));
}

TEST(Simt, CollectiveThatALaneSkips) {
  TestLaunch launch(collective_skipped);
  expect_fault(launch, fmt::format(R"((?:3[2-9]|[45]\d|6[0-3]): is at the shuffle of {}, but thread 40 has ended; .* SIMD-group .*)",
                                   line(collective_skipped_line)));
  launch.args.option = 1;
  expect_fault(launch, fmt::format(R"((?:3[2-9]|[45]\d|6[0-3]): is at the shuffle of {}, but thread 40 is at the barrier of {}; .*)",
                                   line(collective_skipped_line), line(collective_skipped_line + 2)));
}

TEST(Simt, CollectivesAtTwoPlaces) {
  TestLaunch launch(collective_elsewhere);
  const auto [first, second] = collective_elsewhere_lines;
  expect_fault(launch, fmt::format(R"(\d+: is at the shuffle of {0}, but thread \d+ is at the shuffle of {0}; .*)", either(first, second)));
}

TEST(Simt, BallotThatALaneSkips) {
  expect_fault(TestLaunch(ballot_skipped), fmt::format(R"(\d+: is at the ballot of {}, but thread 9 has ended; .*)", line(ballot_skipped_line)));
}

TEST(Simt, SimdBarrierThatALaneSkips) {
  expect_fault(TestLaunch(simd_barrier_skipped),
               fmt::format(R"((?:3[2-9]|[45]\d|6[0-2]): is at the simd_barrier of {}, but thread 63 has ended; .*)",
                           line(simd_barrier_skipped_line)));
}

// ---- memory out of bounds, unwritten or of the wrong kind

TEST(Simt, SharedMemoryThatNothingHasWritten) {
  for (const std::uint32_t absent : {0u, 20u}) {
    TestLaunch launch(reads_unwritten_shared);
    launch.grid = {2, 1, 1};
    launch.args.option = absent;
    expect_fault(launch, R"(\([01], 0, 0\))",
                 fmt::format(R"({}: load of 4 bytes at byte {} of shared memory \(512 bytes\), which no thread of the group has stored to so far)",
                             absent, absent * 4));
  }
}

TEST(Simt, SharedMemoryPastItsEnd) {
  TestLaunch launch(reads_past_shared);
  launch.args.at = 128;
  expect_fault(launch, R"(5: load of 4 bytes at byte 512 of shared memory \(512 bytes\): ends 4 bytes past its end)");
}

TEST(Simt, LoadsOutOfRange) {
  TestLaunch launch(load_at, 1000);
  launch.args.at = 1000;
  expect_fault(launch, R"(21: load of 4 bytes at byte 4000 of binding 0 \(in, 4000 bytes\): ends 4 bytes past its end)");
  launch.args.at = -1;
  expect_fault(launch, R"(21: load of 4 bytes 4 bytes before the begin of binding \d.*)");
  launch.args.at = std::int64_t{1} << 40;
  expect_fault(launch, R"(21: load of 4 bytes at address 0x[0-9a-f]+, far from all bindings \(.*\))");
}

TEST(Simt, StoresOutOfRange) {
  TestLaunch launch(store_at, 64, 1000);
  launch.args.at = 1000;
  expect_fault(launch, R"(21: store of 4 bytes at byte 4000 of binding 1 \(out, 4000 bytes\): ends 4 bytes past its end)");
  launch.args.at = std::int64_t{1} << 40;
  expect_fault(launch, R"(21: store of 4 bytes at address 0x[0-9a-f]+, far from all bindings \(.*\))");
}

TEST(Simt, StoreOneBytePastTheEnd) {
  TestLaunch launch(store_byte_at);
  launch.args.at = 256;
  expect_fault(launch, R"(21: store of 1 byte at byte 256 of binding 1 \(out, 256 bytes\): ends 1 byte past its end)");
  launch.args.at = 255;
  EXPECT_TRUE(launch.run(0));
}

TEST(Simt, AFaultyAccessDoesNotHappen) {
  TestLaunch launch(store_at);
  std::vector<float> next(64, 3.0f);
  launch.args.at = next.data() - launch.y.data();
  ASSERT_FALSE(launch.run(0));
  EXPECT_EQ(next, std::vector<float>(64, 3.0f));
}

TEST(Simt, AccessThatLeavesOneBindingForTheNext) {
  // Two bindings side by side: a load that is within their union, and within neither.
  const std::vector<float> both(16);
  const auto* const begin = reinterpret_cast<const std::byte*>(both.data());
  TestLaunch launch(load_wide_at);
  launch.args.x.ptr = both.data();
  launch.more = {{begin, begin + 24, Access::in, 3}, {begin + 24, begin + 64, Access::in, 4}};
  launch.args.at = 8;
  EXPECT_TRUE(launch.run(0));
  launch.args.at = 24;
  EXPECT_TRUE(launch.run(0));
  launch.kernel = load_pair_at;
  launch.args.at = 16;
  EXPECT_TRUE(launch.run(0));
  launch.args.at = 20;
  expect_fault(launch, R"(21: load of 8 bytes at byte 20 of binding 3 \(in, 24 bytes\): ends 4 bytes past its end)");
  // A third that holds both makes it right.
  launch.more.push_back({begin, begin + 64, Access::in, 5});
  EXPECT_TRUE(launch.run(0));
}

TEST(Simt, WideLoadPastTheEnd) {
  TestLaunch launch(load_wide_at);
  launch.args.at = 240;
  EXPECT_TRUE(launch.run(0));
  launch.args.at = 244;
  expect_fault(launch, R"(21: load of \d+ bytes at byte \d+ of binding 0 \(in, 256 bytes\): ends 4 bytes past its end)");
}

TEST(Simt, MisalignedLoads) {
  // In single bytes, in halves, at once.
  TestLaunch bytes(load_word_at[0]), halves(load_word_at[1]), word(load_word_at[2]);
  for (TestLaunch* launch : {&bytes, &halves, &word}) {
    launch->args.at = 8;
    EXPECT_TRUE(launch->run(0));
    launch->args.at = 6;
  }
  EXPECT_TRUE(bytes.run(0));
  EXPECT_TRUE(halves.run(0));
  expect_fault(word, R"(21: misaligned load of 4 bytes at byte 6 of binding 0 \(in, 256 bytes\): the address is no multiple of 4)");
  bytes.args.at = halves.args.at = 7;
  EXPECT_TRUE(bytes.run(0));
  expect_fault(halves, R"(21: misaligned load of 2 bytes at byte 7 of binding 0 .*)");

  // Sixteen bytes at once, which the host's compiler splits.
  TestLaunch four(load_four_at);
  four.args.x.ptr = reinterpret_cast<const float*>((reinterpret_cast<std::uintptr_t>(four.x.data()) + 15) / 16 * 16);
  EXPECT_TRUE(four.run(0));
  four.args.at = 2;
  expect_fault(four, R"(21: misaligned load of 16 bytes at byte \d+ of binding 0 .*: the address is no multiple of 16)");
}

TEST(Simt, StoreToAnInput) {
  TestLaunch launch(updates_input);
  launch.args.at = 7;
  expect_fault(launch, R"(21: store of 4 bytes at byte 28 of binding 0 \(in, 256 bytes\), which the launch may only read)");
}

TEST(Simt, LoadOfAnOutputThatNothingHasWritten) {
  TestLaunch launch(reads_output);
  launch.args.option = 31;
  expect_fault(launch, R"(31: load of 4 bytes at byte 124 of binding 1 \(out, 256 bytes\), which nothing in this launch has stored to so far)");
  launch.args.option = 32;
  EXPECT_TRUE(launch.run(0));
  // What an earlier launch has written does not count.
  launch.args.option = 31;
  expect_fault(launch, R"(31: load of 4 bytes at byte 124 of binding 1 .*)");
}

TEST(Simt, NullPointers) {
  for (const Kernel& kernel : {load_through, store_through}) {
    TestLaunch launch(kernel);
    launch.args.z.ptr = nullptr;
    expect_fault(launch, R"(21: (?:load|store) of 4 bytes at byte 0 behind a null pointer .*)");
    launch.args.at = 3;
    expect_fault(launch, R"(21: (?:load|store) of 4 bytes at byte 12 behind a null pointer .*)");
  }
}

constexpr std::array<std::uint32_t, 4> kConstant = {1, 2, 3, 4};
std::array<std::uint32_t, 4> variable = {1, 2, 3, 4};

TEST(Simt, Constants) {
  TestLaunch launch(store_through);
  launch.args.z.ptr = const_cast<std::uint32_t*>(kConstant.data());
  expect_fault(launch, "21: store of 4 bytes at a constant of the program");
  launch.kernel = load_through;
  launch.args.at = 2;
  ASSERT_TRUE(launch.run(0));
  EXPECT_EQ(launch.y[0], 3.0f);
  // What the program may change is no constant. How far it lies from the launch's memory is the loader's choice.
  launch.args.z.ptr = variable.data();
  expect_fault(launch, R"(21: load of 4 bytes (?:at address 0x[0-9a-f]+|\d+ bytes before the begin of|at byte \d+ of).*)");
}

TEST(Simt, StoreToTheLaunchStruct) {
  TestLaunch launch(store_through);
  launch.args.z.ptr = &launch.args.n;
  expect_fault(launch, R"(21: store of 4 bytes at byte 32 of the launch struct)");
  launch.kernel = load_through;
  launch.args.n = 77;
  ASSERT_TRUE(launch.run(0));
  EXPECT_EQ(launch.y[0], 77.0f);
}

TEST(Simt, IndexOfALocalArray) {
  TestLaunch launch(load_local_at);
  launch.args.at = 30;
  ASSERT_TRUE(launch.run(0));
  EXPECT_EQ(launch.y[5], 30.0f);
  launch.args.at = -(std::int64_t{20} << 10);
  expect_fault(launch, R"(\d+: load of 4 bytes outside the thread's local variables)");
}

// ---- races

TEST(Simt, RaceOfTwoStores) {
  expect_fault(TestLaunch(race_store_store), R"((?:3: race: store of 4 bytes at byte 68 of shared memory \(512 bytes\), which thread 40 has stored to, and no barrier lies in between|40: race: store of 4 bytes at byte 68 of shared memory \(512 bytes\), which thread 3 has stored to, and no barrier lies in between))");
}

TEST(Simt, RaceOfALoadAndAStore) {
  expect_fault(TestLaunch(race_load_store), R"((?:3: race: load of 4 bytes at byte 68 of shared memory .*, which thread 40 has stored to, and .*|40: race: store of 4 bytes at byte 68 of shared memory .*, which thread 3 has loaded from, and no barrier lies in between))");
}

TEST(Simt, RaceOverTheRoundsOfALoop) {
  expect_fault(TestLaunch(race_store_load), R"(\d+: race: (?:store .* has loaded from|load .* has stored to), and no barrier lies in between)");
}

TEST(Simt, RaceInASimdGroup) {
  TestLaunch launch(race_in_simd_group);
  expect_fault(launch, R"(\d+: race: .* of shared memory .* thread \d+ has .*, and no barrier or simd_barrier lies in between)");
  launch.args.option = 1;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) EXPECT_TRUE(launch.run(seed));
}

TEST(Simt, ShuffleOrdersNoMemory) {
  expect_fault(TestLaunch(race_shuffle_is_no_barrier), R"(\d+: race: load .* has stored to, and no barrier or simd_barrier lies in between)");
}

TEST(Simt, RaceOfBytesInOneWord) {
  expect_fault(TestLaunch(race_bytes), R"((?:33: race: store of 1 byte at byte 34 of shared memory .* thread 34 .*|34: race: store of 1 byte at byte 34 of shared memory .* thread 33 .*))");
}

TEST(Simt, RaceOfGroups) {
  TestLaunch launch(race_between_groups);
  launch.grid = {1, 2, 2};
  expect_fault(launch, R"(\(0, [01], 1\))", R"(7: race: store of 4 bytes at byte 20 of binding 1 \(out, 256 bytes\), which thread 7 of group \(0, [01], 1\) has stored to, and nothing orders the groups of a launch)");
}

TEST(Simt, RaceOfGroupsWithALoad) {
  TestLaunch launch(race_groups_load_store);
  launch.grid = {4, 1, 1};
  expect_fault(launch, R"(\([0-3], 0, 0\))", R"(7: race: (?:store .* thread 7 of group \([013], 0, 0\) has loaded from|load .* thread 7 of group \(2, 0, 0\) has stored to), and nothing orders the groups of a launch)");
}

TEST(Simt, RaceOfAtomicAndPlainAccess) {
  TestLaunch launch(race_atomic_and_store);
  expect_fault(launch, R"(\d+: race: (?:store .* has used atomic_add on|atomic_add .* thread 0 has stored to), and .*)");
  launch.args.option = 64;
  EXPECT_TRUE(launch.run(0));
  TestLaunch loads(race_atomic_and_load);
  EXPECT_TRUE(loads.run(0));
  loads.grid = {3, 1, 1};
  expect_fault(loads, R"(\([0-2], 0, 0\))", R"(\d+: race: (?:load .* has used atomic_add on|atomic_add .* has loaded from), and nothing orders the groups of a launch)");
}

TEST(Simt, RaceInGlobalMemory) {
  TestLaunch launch(race_global_in_group);
  expect_fault(launch, R"(\d+: race: .* of binding 2 \(in_out, 256 bytes\), which thread \d+ has .*, and no barrier (?:or simd_barrier )?lies in between)");
  launch.args.option = 1;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) EXPECT_TRUE(launch.run(seed));
}

}  // namespace
}  // namespace mlxn::test::faults_suite
