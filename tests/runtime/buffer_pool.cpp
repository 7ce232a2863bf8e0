#include "mlxn/buffer_pool.h"

#include <algorithm>
#include <cstdint>

#include "gtest/gtest.h"
#include "mlxn/encoder.h"
#include "tests/runtime/callables.h"

namespace mlxn::buffer_pool_suite {
namespace {

using test::cpu;
using test::fails_with;
using test::must;

BufferPoolOptions sizes(PoolSizes policy) {
  BufferPoolOptions options;
  options.sizes = policy;
  return options;
}

TEST(BufferPool, PowerOfTwoSizes) {
  const auto options = sizes(PoolSizes::power_of_two);
  const std::pair<std::uint64_t, std::uint64_t> cases[] = {
      {0, 1}, {1, 1}, {2, 2}, {3, 4}, {1023, 1024}, {1024, 1024}, {1025, 2048}, {64 << 20, 64 << 20}, {(64 << 20) + 1, (64 << 20) + 1}};
  for (const auto& [bytes, block] : cases) EXPECT_EQ(BufferPool::block_bytes(bytes, options), block) << bytes;
}

TEST(BufferPool, FourSizesPerOctaveWasteAQuarterAtMost) {
  const auto options = sizes(PoolSizes::four_per_octave);
  EXPECT_EQ(BufferPool::block_bytes(1025, options), 1280u);
  EXPECT_EQ(BufferPool::block_bytes(1281, options), 1536u);
  EXPECT_EQ(BufferPool::block_bytes(1793, options), 2048u);
  for (std::uint64_t bytes = 1; bytes < 70000; bytes += 1 + bytes / 50) {
    const std::uint64_t block = BufferPool::block_bytes(bytes, options);
    EXPECT_GE(block, bytes);
    EXPECT_LE((block - bytes) * 4, block) << bytes;
    EXPECT_EQ(BufferPool::block_bytes(block, options), block);
  }
  EXPECT_EQ(BufferPool::block_bytes(~std::uint64_t{0}, options), ~std::uint64_t{0});
}

TEST(BufferPool, ReusesReleasedBlocksAndReportsTheRequestedLength) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device, sizes(PoolSizes::power_of_two)));
  Tensor t = must(pool.allocate(DType::u8, {1000}));
  const void* const memory = t.unsafe_data();
  EXPECT_EQ(t.bytes(), 1000u);
  EXPECT_EQ(must(pool.capacity_bytes(t)), 1024u);
  EXPECT_TRUE(fails_with(t.reinterpret(DType::u8, {1024}), ErrorCode::out_of_range, {}));
  must(pool.release(t));
  EXPECT_FALSE(t.defined());
  EXPECT_EQ(pool.statistics().free_blocks, 1u);
  EXPECT_EQ(pool.statistics().free_bytes, 1024u);
  const Tensor again = must(pool.allocate(DType::f32, {256}));
  EXPECT_EQ(again.unsafe_data(), memory);
  EXPECT_EQ(pool.statistics().free_blocks, 0u);
  EXPECT_EQ(pool.statistics().hits, 1u);
  EXPECT_EQ(pool.statistics().misses, 1u);
}

TEST(BufferPool, BlocksServeRequestsOfTheirSizeClass) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device, sizes(PoolSizes::power_of_two)));
  Tensor t = must(pool.allocate(DType::u8, {100}));
  must(pool.release(t));
  Tensor same = must(pool.allocate(DType::u8, {128})), other = must(pool.allocate(DType::u8, {200}));
  EXPECT_EQ(pool.statistics().misses, 2u);
  must(pool.release(same));
  must(pool.release(other));
  EXPECT_EQ(pool.statistics().free_blocks, 2u);
  EXPECT_EQ(pool.statistics().in_use_blocks, 0u);
  EXPECT_EQ(pool.statistics().peak_bytes, 128u + 256u);
}

TEST(BufferPool, RefusesForeignMemoryViewsAndSecondReleases) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device)), other = must(BufferPool::create(device));
  Tensor foreign = must(device.allocate(DType::u8, {100})), others = must(other.allocate(DType::u8, {100}));
  EXPECT_TRUE(fails_with(pool.release(foreign), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(pool.release(others), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(pool.capacity_bytes(others), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(foreign.defined());
  Tensor none;
  EXPECT_TRUE(fails_with(pool.release(none), ErrorCode::invalid_argument, {}));
  Tensor t = must(pool.allocate(DType::u8, {100}));
  Tensor view = must(t.slice(0, 0, 50)), tail = must(t.slice(0, 50, 100)), copy = t;
  EXPECT_TRUE(fails_with(pool.release(view), ErrorCode::invalid_argument, {"view"}));
  EXPECT_TRUE(fails_with(pool.release(tail), ErrorCode::invalid_argument, {"view"}));
  must(pool.release(t));
  EXPECT_TRUE(fails_with(pool.release(copy), ErrorCode::wrong_state, {"before"}));
  EXPECT_EQ(pool.statistics().free_blocks, 0u);  // three handles live
  copy = view = tail = {};
  EXPECT_EQ(pool.statistics().free_blocks, 1u);
}

TEST(BufferPool, WaitsForTheLastHandleAndTheLastSubmission) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device));
  std::atomic<bool> open{false};
  const auto gate = test::callable(device, {Access::out}, [&](const CallableArgs&) -> Result<void> {
    test::eventually([&] { return open.load(); });
    return {};
  });
  Tensor t = must(pool.allocate(DType::u8, {100}));
  const void* const memory = t.unsafe_data();
  CommandEncoder encoder = must(device.encoder());
  must(test::dispatch(encoder, gate, {t}));
  const Submission submission = must(encoder.commit());
  must(pool.release(t));
  EXPECT_EQ(pool.statistics().free_blocks, 0u);
  EXPECT_NE(must(pool.allocate(DType::u8, {100})).unsafe_data(), memory);
  open = true;
  must(submission.wait());
  EXPECT_EQ(pool.statistics().free_blocks, 2u);
  EXPECT_EQ(pool.statistics().in_use_blocks, 0u);
}

TEST(BufferPool, ZeroesOnRequest) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device));
  for (int round = 0; round < 3; ++round) {
    const Tensor t = must(pool.allocate(DType::u8, {1000}, true));
    const auto data = must(t.write<std::uint8_t>());
    EXPECT_TRUE(std::all_of(data.begin(), data.end(), [](std::uint8_t b) { return b == 0; }));
    std::fill(data.begin(), data.end(), std::uint8_t{1});
  }
  EXPECT_EQ(pool.statistics().hits, 2u);
}

TEST(BufferPool, TrimsTheLargestFirst) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device));
  {
    const Tensor a = must(pool.allocate(DType::u8, {1024})), b = must(pool.allocate(DType::u8, {4096})), c = must(pool.allocate(DType::u8, {256}));
  }
  const Tensor held = must(pool.allocate(DType::u8, {512}));
  pool.trim(1300);
  EXPECT_EQ(pool.statistics().free_bytes, 1280u);
  pool.trim();
  EXPECT_EQ(pool.statistics().free_blocks, 0u);
  EXPECT_EQ(pool.statistics().in_use_bytes, 512u);
  EXPECT_EQ(device.counters().bytes_in_use, 512u);
}

TEST(BufferPool, StaysBelowItsLimit) {
  const Device device = cpu();
  BufferPoolOptions options;
  options.limit_bytes = 4096;
  BufferPool pool = must(BufferPool::create(device, options));
  Tensor a = must(pool.allocate(DType::u8, {2048}));
  EXPECT_TRUE(fails_with(pool.allocate(DType::u8, {2049}), ErrorCode::out_of_memory, {"4096"}));
  must(pool.release(a));
  const Tensor all = must(pool.allocate(DType::u8, {4096}));  // in place of the free block
  EXPECT_EQ(pool.statistics().free_blocks, 0u);
  EXPECT_EQ(pool.statistics().peak_bytes, 4096u);
}

TEST(BufferPool, GivesBackFreeBlocksWhenTheDeviceIsFull) {
  DeviceOptions device_options;
  device_options.memory_limit_bytes = 4096;
  const Device device = cpu(1, device_options);
  BufferPool pool = must(BufferPool::create(device));
  Tensor a = must(pool.allocate(DType::u8, {2048}));
  must(pool.release(a));
  EXPECT_TRUE(pool.allocate(DType::u8, {4096}));
}

TEST(BufferPool, BlocksOutliveThePool) {
  const Device device = cpu();
  Tensor t;
  {
    BufferPool pool = must(BufferPool::create(device));
    t = must(pool.allocate(DType::u8, {1000}));
    BufferPool moved = std::move(pool);
    EXPECT_EQ(moved.statistics().in_use_blocks, 1u);
    EXPECT_TRUE(fails_with(pool.allocate(DType::u8, {1}), ErrorCode::invalid_argument, {}));  // NOLINT: moved from on purpose
  }
  must(device.fill(t, std::byte{1}));
  EXPECT_EQ(device.counters().bytes_in_use, 1024u);
  t = {};
  EXPECT_EQ(device.counters().bytes_in_use, 0u);
}

TEST(BufferPool, RefusesWhatTheDeviceRefuses) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device));
  EXPECT_TRUE(fails_with(pool.allocate(DType::u8, {0}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(pool.allocate(static_cast<DType>(200), {32}), ErrorCode::bad_dtype, {"dtype 200 is none"}));
  EXPECT_TRUE(fails_with(pool.allocate(DType::u8, {std::int64_t{1} << 60}), ErrorCode::out_of_memory, {}));
  EXPECT_TRUE(fails_with(BufferPool::create(Device()), ErrorCode::invalid_argument, {}));
  BufferPoolOptions options;
  options.sizes = static_cast<PoolSizes>(5);
  EXPECT_TRUE(fails_with(BufferPool::create(device, options), ErrorCode::invalid_argument, {"pool", "sizes is 5"}));
  EXPECT_EQ(pool.statistics().in_use_blocks, 0u);
}

TEST(BufferPool, SeveralThreadsShareOne) {
  const Device device = cpu();
  BufferPool pool = must(BufferPool::create(device));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      for (int i = 0; i < 500; ++i) {
        Tensor t = must(pool.allocate(DType::u8, {64 + i % 7 * 100}));
        {
          const auto data = must(t.write<std::uint8_t>());
          std::fill(data.begin(), data.end(), static_cast<std::uint8_t>(id));
          if (std::any_of(data.begin(), data.end(), [&](std::uint8_t b) { return b != id; })) ++wrong;
        }
        if (i % 2 == 0) must(pool.release(t));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(pool.statistics().in_use_blocks, 0u);
  EXPECT_EQ(pool.statistics().hits + pool.statistics().misses, 2000u);
}

TEST(BufferPool, OfOneThreadTakesBlocksBackFromTheLane) {
  const Device device = cpu();
  BufferPoolOptions options;
  options.thread_safe = false;
  BufferPool pool = must(BufferPool::create(device, options));
  for (int i = 0; i < 200; ++i) {
    Tensor t = must(pool.allocate(DType::u8, {1000}));
    CommandEncoder encoder = must(device.encoder());
    must(encoder.fill(t, std::byte{1}));
    t = {};
    must(encoder.commit());
  }
  must(device.default_queue().wait_idle());
  EXPECT_EQ(pool.statistics().in_use_blocks, 0u);
  EXPECT_GT(pool.statistics().hits, 0u);
}

}  // namespace
}  // namespace mlxn::buffer_pool_suite
