#include <cstdint>
#include <tuple>

#include "backends/command_list.h"
#include "backends/cpu/launch.h"
#include "gtest/gtest.h"
#include "mlxn/encoder.h"
#include "mlxn/graph.h"
#include "tests/runtime/callables.h"

namespace mlxn::hazards_suite {
namespace {

using test::callable;
using test::cpu;
using test::dispatch;
using test::eventually;
using test::must;

struct Pair {
  Access first, second;
  std::int64_t first_begin, first_end, second_begin, second_end;
  bool joined;
};

/// Whether the second of two dispatches ran while the first one did. The first keeps thread 0 busy until the second has
/// begun on thread 1, or for a while that the second has no chance to use if it has to wait.
bool overlap(const Pair& pair, HazardMode mode, bool barrier = false) {
  const Device device = cpu(2);
  const Tensor t = must(device.allocate(DType::u8, {16}));
  std::atomic<bool> second_began{false}, overlapped{false};
  const auto patience = std::chrono::milliseconds(pair.joined || barrier || mode == HazardMode::serial ? 30 : 20000);
  const auto first = callable(device, {pair.first}, [&](const CallableArgs&) -> Result<void> {
    overlapped = eventually([&] { return second_began.load(); }, patience);
    return {};
  });
  const auto second = callable(device, {pair.second}, [&](const CallableArgs&) -> Result<void> {
    second_began = true;
    return {};
  });
  EncoderOptions options;
  options.hazards = mode;
  CommandEncoder encoder = must(device.encoder(options));
  must(dispatch(encoder, first, {must(t.slice(0, pair.first_begin, pair.first_end))}));
  if (barrier) must(encoder.barrier());
  must(dispatch(encoder, second, {must(t.slice(0, pair.second_begin, pair.second_end))}, 2));
  must(encoder.commit_and_wait());
  return overlapped;
}

constexpr Pair kPairs[] = {
    {Access::out, Access::in, 0, 8, 0, 8, true},       // read after write
    {Access::in, Access::out, 0, 8, 0, 8, true},       // write after read
    {Access::out, Access::out, 0, 8, 0, 8, true},      // write after write
    {Access::in_out, Access::in, 0, 8, 0, 8, true},
    {Access::in, Access::in_out, 0, 8, 0, 8, true},
    {Access::in, Access::in, 0, 8, 0, 8, false},       // reads share
    {Access::out, Access::in, 0, 8, 7, 16, true},      // one byte in common
    {Access::out, Access::in, 7, 16, 0, 8, true},
    {Access::out, Access::in, 0, 8, 8, 16, false},     // ranges that touch
    {Access::out, Access::out, 8, 16, 0, 8, false},
};

TEST(Hazards, AutomaticModeJoinsExactlyWhereRangesConflict) {
  for (const Pair& pair : kPairs) {
    EXPECT_EQ(overlap(pair, HazardMode::automatic), !pair.joined)
        << static_cast<int>(pair.first) << static_cast<int>(pair.second) << ' ' << pair.first_begin << ' ' << pair.second_begin;
  }
}

TEST(Hazards, SerialModeAlwaysJoins) { EXPECT_FALSE(overlap({Access::in, Access::in, 0, 8, 0, 8, true}, HazardMode::serial)); }

TEST(Hazards, ManualModeJoinsAtBarriersOnly) {
  const Pair pair{Access::out, Access::in, 0, 8, 0, 8, false};
  EXPECT_TRUE(overlap(pair, HazardMode::manual));
  EXPECT_FALSE(overlap(pair, HazardMode::manual, true));
}

TEST(Hazards, ABarrierJoinsWhatDoesNotConflict) {
  EXPECT_FALSE(overlap({Access::in, Access::in, 0, 8, 0, 8, false}, HazardMode::automatic, true));
}

TEST(Hazards, TwoImportsOfTheSameMemoryConflict) {
  const Device device = cpu(2);
  std::vector<std::byte> memory(64);
  const Tensor a = must(device.import_memory(memory.data(), 64, nullptr, DType::u8, {64}));
  const Tensor b = must(device.import_memory(memory.data() + 32, 32, nullptr, DType::u8, {32}));
  EXPECT_TRUE(a.overlaps(b));
  EXPECT_FALSE(must(a.slice(0, 0, 32)).overlaps(b));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.fill(a, std::byte{1}));
  must(encoder.fill(b, std::byte{2}));
  EXPECT_EQ(encoder.list()->barriers(), 1u);
  must(encoder.commit_and_wait());
  EXPECT_EQ(memory[31], std::byte{1});
  EXPECT_EQ(memory[32], std::byte{2});
}

TEST(Hazards, ModesAgreeBitForBit) {
  std::vector<std::vector<std::int32_t>> results;
  for (const HazardMode mode : {HazardMode::serial, HazardMode::automatic}) {
    const Device device = cpu(4);
    std::vector<Tensor> tensors;
    for (int i = 0; i < 6; ++i) tensors.push_back(must(device.allocate(DType::i32, {100})));
    const auto mix = callable(device, {Access::in, Access::in_out}, [](const CallableArgs& args) -> Result<void> {
      const auto* x = reinterpret_cast<const std::int32_t*>(args.bindings[0].data());
      auto* y = reinterpret_cast<std::int32_t*>(args.bindings[1].data());
      for (std::uint64_t i = args.begin; i < args.end; ++i) y[i] = (y[i] * 31 + x[(i * 7) % 50]) % 10007 + 1;
      return {};
    });
    EncoderOptions options;
    options.hazards = mode;
    CommandEncoder encoder = must(device.encoder(options));
    for (const Tensor& t : tensors) must(encoder.fill(t, std::byte{1}));
    for (std::size_t i = 0; i < 500; ++i) {
      const Tensor x = must(tensors[i * i % 6].slice(0, 0, 50)), y = must(tensors[(i * 5 + 1) % 6].slice(0, 50, 100));
      must(dispatch(encoder, mix, {x, y}, 50));
    }
    must(encoder.commit_and_wait());
    std::vector<std::int32_t>& all = results.emplace_back();
    for (const Tensor& t : tensors) {
      const auto data = must(t.read<std::int32_t>());
      all.insert(all.end(), data.begin(), data.end());
    }
  }
  EXPECT_EQ(results[0], results[1]);
}

struct ScratchArgs {
  InOut<std::byte> work;
  InOut<std::byte> more;
};
void touch(const ScratchArgs&, const CpuContext&) {}
constexpr auto kTouch = cpu::kernel<&touch>("touch");

Result<void> use_scratch(CommandEncoder& encoder, const Tensor& a, const Tensor& b = {}) {
  Launch<ScratchArgs> launch;
  launch.bind(launch.args.work, a);
  if (b.defined()) launch.bind(launch.args.more, b);
  return cpu::encode(encoder, kTouch, launch);
}

constexpr std::uint64_t kLarge = 600 << 10;  // two of them are more than an arena has

TEST(Scratch, PiecesThatAnOperationHoldsNeverOverlap) {
  const Device device = cpu();
  CommandEncoder encoder = must(device.encoder());
  const Tensor a = must(cpu::scratch(encoder, kLarge)), b = must(cpu::scratch(encoder, kLarge));
  EXPECT_FALSE(a.overlaps(b));
  must(use_scratch(encoder, a, b));
  const Tensor c = must(cpu::scratch(encoder, kLarge));
  EXPECT_FALSE(c.overlaps(a));
  EXPECT_FALSE(c.overlaps(b));
}

TEST(Scratch, IsReusedInAnEncoderAndInTheNext) {
  const Device device = cpu();
  std::uint64_t after_first = 0;
  for (int round = 0; round < 3; ++round) {
    CommandEncoder encoder = must(device.encoder());
    for (int i = 0; i < 20; ++i) must(use_scratch(encoder, must(cpu::scratch(encoder, kLarge))));
    must(encoder.commit_and_wait());
    if (round == 0) after_first = device.counters().allocations;
    EXPECT_EQ(device.counters().allocations, after_first);
  }
  EXPECT_LE(after_first, 2u);
}

TEST(Scratch, ReuseIsOrderedInEveryMode) {
  for (const HazardMode mode : {HazardMode::automatic, HazardMode::manual, HazardMode::serial}) {
    const Device device = cpu();
    EncoderOptions options;
    options.hazards = mode;
    CommandEncoder encoder = must(device.encoder(options));
    for (int i = 0; i < 20; ++i) {
      const Tensor work = must(cpu::scratch(encoder, kLarge));
      must(use_scratch(encoder, work));
      // The arena has room for two pieces: the third one comes to bytes that are in use.
      EXPECT_EQ(encoder.list()->barriers(), mode == HazardMode::serial ? static_cast<std::size_t>(i) : static_cast<std::size_t>(i) / 2);
    }
    const Tensor work = must(cpu::scratch(encoder, kLarge));
    must(use_scratch(encoder, work));
    const std::size_t before = encoder.list()->barriers();
    must(use_scratch(encoder, work));
    EXPECT_EQ(encoder.list()->barriers(), before + 1);
  }
}

TEST(Scratch, RefusesWhatNoMachineHas) {
  const Device device = cpu();
  CommandEncoder encoder = must(device.encoder());
  for (const std::uint64_t bytes : {~std::uint64_t{0}, ~std::uint64_t{0} - 62, std::uint64_t{1} << 50}) {
    EXPECT_TRUE(test::fails_with(cpu::scratch(encoder, bytes), ErrorCode::out_of_memory, {}));
  }
  EXPECT_EQ(must(cpu::scratch(encoder, 0)).bytes(), 0u);
}

TEST(Scratch, GivesWayWhenMemoryIsShort) {
  DeviceOptions device_options;
  device_options.memory_limit_bytes = 3 << 20;
  const Device device = cpu(1, device_options);
  {
    CommandEncoder encoder = must(device.encoder());
    must(use_scratch(encoder, must(cpu::scratch(encoder, 1000))));
  }
  EXPECT_EQ(device.counters().bytes_in_use, 1u << 20);
  EXPECT_TRUE(device.allocate(DType::u8, {3 << 20}));
}

}  // namespace
}  // namespace mlxn::hazards_suite
