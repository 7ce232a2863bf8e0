#include "mlxn/device.h"

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/encoder.h"
#include "mlxn/kernel.h"
#include "tests/support/must.h"

namespace mlxn::device_suite {
namespace {

using test::fails_with;
using test::must;

Device cpu(int threads = 2) {
  DeviceOptions options;
  options.threads = threads;
  return must(Device::open("cpu", options));
}

TEST(Device, OpensByNameAndSaysWhy) {
  const Device named = must(Device::open("cpu"));
  EXPECT_FALSE(named.capabilities().name.empty());
  EXPECT_EQ(named.capabilities().backend, "cpu");
  EXPECT_TRUE(named.capabilities().selection_reason.empty());
  EXPECT_FALSE(must(Device::open("auto")).capabilities().selection_reason.empty());
  // No machine has so many, and many a build has no CUDA backend at all.
  const auto far = Device::open("cuda:9999");
  ASSERT_FALSE(far);
  const bool absent = far.error().code() == ErrorCode::unsupported;
  EXPECT_TRUE(fails_with(far, absent ? ErrorCode::unsupported : ErrorCode::not_found, {absent ? "this build has no CUDA backend" : "cuda: "}));
  EXPECT_TRUE(fails_with(Device::open("metal"), ErrorCode::unsupported, {"metal"}));
  EXPECT_TRUE(fails_with(Device::open("tpu"), ErrorCode::invalid_argument, {"tpu"}));
}

TEST(Device, EnumerationAlwaysHasTheCpu) {
  const auto all = must(Device::enumerate());
  EXPECT_TRUE(std::any_of(all.begin(), all.end(), [](const Capabilities& c) { return c.backend == "cpu"; }));
}

TEST(Device, CapabilitiesAreFilled) {
  const Device device = cpu(3);
  const Capabilities& c = device.capabilities();
  EXPECT_EQ(c.threads, 3);
  EXPECT_GT(c.total_bytes, 0u);
  EXPECT_LE(c.free_bytes, c.total_bytes);
  EXPECT_GE(c.simd_width, 1u);
  EXPECT_GE(c.alignment_bytes, 256u);
  EXPECT_TRUE(c.unified_memory);
}

TEST(Device, FreeBytesFollowTheLimit) {
  DeviceOptions options;
  options.memory_limit_bytes = 1 << 20;
  const Device device = must(Device::open("cpu", options));
  EXPECT_EQ(device.free_bytes(), 1u << 20);
  const Tensor half = must(device.allocate(DType::u8, {1 << 19}));
  EXPECT_EQ(device.free_bytes(), 1u << 19);
}

TEST(Device, RefusesOptionsOutOfTheirDomain) {
  DeviceOptions options;
  options.threads = -1;
  EXPECT_TRUE(fails_with(Device::open("cpu", options), ErrorCode::invalid_argument, {"-1"}));
  options.threads = kMaxThreads + 1;
  EXPECT_TRUE(fails_with(Device::open("cpu", options), ErrorCode::invalid_argument, {"1025"}));
  options = {};
  options.max_in_flight = 0;
  EXPECT_TRUE(fails_with(Device::open("cpu", options), ErrorCode::invalid_argument, {"max_in_flight"}));
  EncoderOptions unordered;
  unordered.hazards = static_cast<HazardMode>(9);
  EXPECT_TRUE(fails_with(cpu().encoder(unordered), ErrorCode::invalid_argument, {"encoder", "hazards is 9", "0 to 2"}));
}

TEST(Device, EmptyHandleFailsEverywhere) {
  const Device none;
  EXPECT_FALSE(none.defined());
  EXPECT_TRUE(none.capabilities().name.empty());
  EXPECT_EQ(none.counters().submissions, 0u);
  EXPECT_EQ(none.free_bytes(), 0u);
  EXPECT_FALSE(none.default_queue().defined());
  EXPECT_TRUE(fails_with(none.allocate(DType::f32, {1}), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(none.encoder(), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(none.create_queue(), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(none.kernels().names(), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(none.kernels().find("x"), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(Queue().wait_idle(), ErrorCode::invalid_argument, {}));
}

TEST(Allocate, BytesShapeAndElements) {
  const Tensor t = must(cpu().allocate(DType::f32, {2, 3, 4}));
  EXPECT_EQ(t.bytes(), 96u);
  EXPECT_EQ(t.shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(t.elems(), 24);
}

TEST(Allocate, ValuesReadBackExactly) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::f32, {64}));
  {
    const auto out = must(t.write<float>());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = 1.5f * static_cast<float>(i);
  }
  const auto in = must(t.read<float>());
  for (std::size_t i = 0; i < in.size(); ++i) EXPECT_EQ(in[i], 1.5f * static_cast<float>(i));
}

TEST(Allocate, FreshMemoryIsZeroAndAligned) {
  const Device device = cpu();
  // The second round reuses what the first one gave back; sizes on both sides of the mapping threshold.
  for (int round = 0; round < 2; ++round) {
    for (const std::int64_t bytes : {1, 255, 4096, 300000, 9 << 20}) {
      for (const std::uint64_t alignment : {std::uint64_t{256}, std::uint64_t{4096}, std::uint64_t{1} << 20}) {
        AllocateOptions options;
        options.alignment_bytes = alignment;
        const Tensor t = must(device.allocate(DType::u8, {bytes}, options));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.unsafe_data()) % alignment, 0u);
        const auto data = must(t.write<std::uint8_t>());
        EXPECT_TRUE(std::all_of(data.begin(), data.end(), [](std::uint8_t b) { return b == 0; }));
        std::fill(data.begin(), data.end(), std::uint8_t{7});
      }
    }
  }
  EXPECT_EQ(device.counters().bytes_in_use, 0u);
  EXPECT_GE(device.counters().peak_bytes_in_use, std::uint64_t{9} << 20);
}

TEST(Allocate, RefusesImpossibleRequests) {
  const Device device = cpu();
  constexpr std::int64_t big = std::int64_t{1} << 40;
  EXPECT_TRUE(fails_with(device.allocate(DType::f32, {3, 0}), ErrorCode::bad_shape, {"[3, 0]", "at least one"}));
  EXPECT_TRUE(fails_with(device.allocate(DType::f32, {0}), ErrorCode::bad_shape, {"[0]"}));
  EXPECT_TRUE(fails_with(device.allocate(DType::f32, {4, -1}), ErrorCode::bad_shape, {"[4, -1]", "negative"}));
  EXPECT_TRUE(fails_with(device.allocate(DType::f32, {big, big}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(device.allocate(DType::f64, {std::int64_t{1} << 62}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(device.allocate(DType::q4_K, {100}), ErrorCode::bad_shape, {"q4_K"}));
  EXPECT_TRUE(fails_with(device.allocate(DType::f32, {1, 1, 1, 1, 1, 1, 1}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(device.allocate(DType::u8, {big * 1024}), ErrorCode::out_of_memory, {}));
  EXPECT_TRUE(fails_with(device.allocate(static_cast<DType>(200), {32}), ErrorCode::bad_dtype, {"allocate", "dtype 200 is none"}));
  float value = 0;
  EXPECT_TRUE(fails_with(device.import_memory(&value, 4, {}, static_cast<DType>(kDTypeCount), {1}), ErrorCode::bad_dtype, {"is none"}));
  for (const std::uint64_t alignment : {0, 3, 1 << 21}) {
    AllocateOptions options;
    options.alignment_bytes = alignment;
    EXPECT_TRUE(fails_with(device.allocate(DType::f32, {4}, options), ErrorCode::invalid_argument, {}));
  }
  AllocateOptions nowhere;
  nowhere.kind = static_cast<MemoryKind>(77);
  EXPECT_TRUE(fails_with(device.allocate(DType::f32, {4}, nowhere), ErrorCode::invalid_argument, {"allocate", "kind is 77", "0 to 3"}));
  EXPECT_EQ(device.counters().bytes_in_use, 0u);
}

TEST(Allocate, StaysBelowTheLimitAndIsTransient) {
  DeviceOptions options;
  options.memory_limit_bytes = 4096;
  const Device device = must(Device::open("cpu", options));
  Tensor held = must(device.allocate(DType::u8, {4000}));
  const auto refused = device.allocate(DType::u8, {97});
  EXPECT_TRUE(fails_with(refused, ErrorCode::out_of_memory, {"97", "4000", "4096"}));
  EXPECT_TRUE(refused.error().is_transient());
  held = {};
  EXPECT_TRUE(device.allocate(DType::u8, {4096}));
}

TEST(Import, RunsItsDeleterOnceInEveryCase) {
  const Device device = cpu();
  std::vector<float> memory(16);
  int deleted = 0;
  const auto deleter = [&] { ++deleted; };
  {
    const Tensor t = must(device.import_memory(memory.data(), 64, deleter, DType::f32, {4, 4}));
    const Tensor view = must(t.slice(0, 1, 2));
    EXPECT_EQ(view.unsafe_data(), memory.data() + 4);
    EXPECT_EQ(deleted, 0);
  }
  EXPECT_EQ(deleted, 1);
  EXPECT_FALSE(device.import_memory(memory.data(), 63, deleter, DType::f32, {4, 4}));
  EXPECT_EQ(deleted, 2);
  EXPECT_FALSE(device.import_memory(nullptr, 64, deleter, DType::f32, {4, 4}));
  EXPECT_EQ(deleted, 3);
  EXPECT_FALSE(Device().import_memory(memory.data(), 64, deleter, DType::f32, {4, 4}));
  EXPECT_EQ(deleted, 4);
  EXPECT_TRUE(fails_with(device.import_memory(reinterpret_cast<char*>(memory.data()) + 1, 8, deleter, DType::f32, {2}),
                         ErrorCode::bad_shape, {"aligned"}));
  EXPECT_EQ(deleted, 5);
}

TEST(Import, AThrowingDeleterIsHarmless) {
  const Device device = cpu();
  float value = 0;
  const auto deleter = [] { throw 1; };
  EXPECT_TRUE(device.import_memory(&value, 4, deleter, DType::f32, {1}));
  EXPECT_FALSE(device.import_memory(nullptr, 4, deleter, DType::f32, {1}));
}

TEST(Import, StaysAliveUntilTheWorkIsDone) {
  const Device device = cpu();
  std::vector<float> memory(1024, 3.0f);
  const Tensor to = must(device.allocate(DType::f32, {1024}));
  bool deleted = false;
  CommandEncoder encoder = must(device.encoder());
  {
    const Tensor from = must(device.import_memory(memory.data(), 4096, [&] { deleted = true; }, DType::f32, {1024}));
    must(encoder.copy(to, from));
  }
  EXPECT_FALSE(deleted);
  must(encoder.commit_and_wait());
  EXPECT_TRUE(deleted);
  EXPECT_EQ(must(to.read<float>())[1023], 3.0f);
}

TEST(Transfers, SynchronousUploadDownloadCopyFill) {
  const Device device = cpu();
  const Tensor a = must(device.allocate(DType::u8, {1000})), b = must(device.allocate(DType::u8, {1000}));
  std::vector<std::byte> bytes(1000), back(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  must(device.upload(a, bytes));
  must(device.copy(b, a));
  must(device.download(back, b));
  EXPECT_EQ(back, bytes);
  must(device.fill(must(b.slice(0, 10, 20)), std::byte{9}));
  must(device.download(back, b));
  EXPECT_EQ(back[9], bytes[9]);
  EXPECT_EQ(back[10], std::byte{9});
  EXPECT_EQ(back[19], std::byte{9});
  EXPECT_EQ(back[20], bytes[20]);
  EXPECT_TRUE(fails_with(device.upload(a, std::span(bytes).first(999)), ErrorCode::bad_shape, {"999", "1000"}));
  EXPECT_TRUE(fails_with(device.download(std::span(back).first(1), a), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(device.copy(a, must(a.slice(0, 0, 999))), ErrorCode::bad_shape, {}));
}

TEST(Device, TwoOfThemRefuseEachOthersMemoryAndQueues) {
  const Device a = cpu(), b = cpu();
  EXPECT_FALSE(a == b);
  const Tensor of_a = must(a.allocate(DType::f32, {8})), of_b = must(b.allocate(DType::f32, {8}));
  CommandEncoder encoder = must(a.encoder());
  EXPECT_TRUE(fails_with(encoder.fill(of_b, std::byte{1}), ErrorCode::wrong_device, {}));
  EXPECT_TRUE(fails_with(encoder.copy(of_a, of_b), ErrorCode::wrong_device, {}));
  EncoderOptions options;
  options.queue = b.default_queue();
  EXPECT_TRUE(fails_with(a.encoder(options), ErrorCode::wrong_device, {}));
}

TEST(Device, TwoOfThemWorkAtTheSameTime) {
  const auto work = [](const Device& device, std::uint8_t value) {
    const Tensor t = must(device.allocate(DType::u8, {100000}));
    for (int i = 0; i < 50; ++i) must(device.fill(t, std::byte{value}));
    const auto data = must(t.read<std::uint8_t>());
    return std::all_of(data.begin(), data.end(), [&](std::uint8_t b) { return b == value; });
  };
  const Device a = cpu(), b = cpu();
  bool ok = false;
  std::thread other([&] { ok = work(b, 2); });
  EXPECT_TRUE(work(a, 1));
  other.join();
  EXPECT_TRUE(ok);
}

TEST(Queue, KeepsItsDeviceAlive) {
  Queue own, standard;
  Tensor t;
  {
    const Device device = cpu();
    own = must(device.create_queue());
    standard = device.default_queue();
  }
  must(own.wait_idle());
  must(standard.wait_idle());
  EXPECT_EQ(own.counters().submissions, 0u);
}

TEST(Queue, OutlivesDeviceWithWorkInFlight) {
  Submission last;
  std::weak_ptr<DeviceImpl> watch;
  {
    const Device device = cpu();
    watch = device.impl();
    for (int own = 0; own < 2; ++own) {
      EncoderOptions options;
      if (own != 0) options.queue = must(device.create_queue());
      for (int i = 0; i < 20; ++i) {
        const Tensor t = must(device.allocate(DType::u8, {1000}));
        CommandEncoder encoder = must(device.encoder(options));
        must(encoder.fill(t, std::byte{1}));
        last = must(encoder.commit());
      }
    }
  }
  must(last.wait());
  last = {};
  // The lanes may still be about to let go of the device.
  for (int i = 0; i < 2000 && !watch.expired(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(watch.expired());
}

TEST(Counters, AreKeptPerDeviceQueueSubmissionAndProcess) {
  const Device device = cpu(), other = cpu();
  const Tensor t = must(device.allocate(DType::u8, {64}));
  EncoderOptions options;
  options.queue = must(device.create_queue());
  const ProcessCounters before = process_counters();
  CommandEncoder encoder = must(device.encoder(options));
  must(encoder.fill(t, std::byte{1}));
  must(encoder.fill(t, std::byte{2}));  // waits for the first
  const Submission submission = must(encoder.commit());
  must(submission.wait());
  for (const Counters& c : {device.counters(), options.queue.counters(), submission.counters()}) {
    EXPECT_EQ(c.dispatches_encoded, 2u);
    EXPECT_EQ(c.dispatches_executed, 2u);
    EXPECT_EQ(c.barriers, 1u);
    EXPECT_EQ(c.submissions, 1u);
  }
  EXPECT_EQ(device.default_queue().counters().submissions, 0u);
  EXPECT_EQ(other.counters().dispatches_encoded, 0u);
  EXPECT_EQ(device.counters().allocations, 1u);
  EXPECT_EQ(process_counters().dispatches_encoded, before.dispatches_encoded + 2);
  EXPECT_EQ(process_counters().syncs, before.syncs);  // commit and wait are no commit_and_wait
  must(other.fill(must(other.allocate(DType::u8, {8})), std::byte{}));
  EXPECT_EQ(process_counters().syncs, before.syncs + 1);
  EXPECT_EQ(process_counters().dispatches_encoded, before.dispatches_encoded + 3);
  EXPECT_EQ(other.counters().syncs, 1u);
  reset_process_counters();
  EXPECT_EQ(process_counters().syncs, 0u);
  EXPECT_EQ(device.counters().dispatches_encoded, 2u);
}

}  // namespace
}  // namespace mlxn::device_suite
