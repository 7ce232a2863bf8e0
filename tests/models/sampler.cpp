// The state of a sampler when a draw fails.

#include <condition_variable>
#include <mutex>

#include "gtest/gtest.h"
#include "mlxn/kernel.h"
#include "mlxn/model.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;

TEST(Sampler, SaysWhatCameAndWhatIsWanted) {
  const Device device = must(Device::open("cpu"));
  EXPECT_TRUE(fails_with(Sampler::create(device, -1), ErrorCode::bad_shape, {"vocabulary of -1", "at least 1"}));
  Sampler sampler = must(Sampler::create(device, 16));
  EXPECT_TRUE(fails_with(sampler.next({}), ErrorCode::bad_shape, {"logits is an empty tensor", "f32 [1, 16]"}));
  EXPECT_TRUE(fails_with(sampler.next(must(device.allocate(DType::f32, {1, 15}))), ErrorCode::bad_shape, {"f32 [1, 15]", "f32 [1, 16]"}));
}

TEST(Sampler, ADrawThatFailsLeavesItAsItWas) {
  DeviceOptions options;
  options.max_in_flight = 1;
  options.busy_when_full = true;
  const Device device = must(Device::open("cpu", options));
  // Work that keeps the queue full until it is let go.
  std::mutex mutex;
  std::condition_variable changed;
  bool go = false;
  KernelInfo info;
  info.name = "wait";
  const auto kernel = must(device.kernels().register_callable(info, [&](const CallableArgs&) -> Result<void> {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return go; });
    return {};
  }));

  SamplerOptions sampling;
  sampling.sample = {.temperature = 0, .repetition_penalty = 2};
  sampling.window = 4;
  Sampler sampler = must(Sampler::create(device, 16, sampling));
  // Two penalised tokens with the largest logits, and one that wins where both penalties count.
  std::vector<float> values(16);
  values[5] = 10;
  values[6] = 9;
  values[7] = 8;
  const Tensor logits = must(device.allocate(DType::f32, {1, 16}));
  must(device.upload(logits, std::as_bytes(std::span(values))));

  must(sampler.accept(5));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.dispatch({kernel, {}, {}, 1, {}}));
  const Submission blocking = must(encoder.commit());
  EXPECT_TRUE(fails_with(sampler.next(logits), ErrorCode::busy, {}));
  {
    const std::lock_guard lock(mutex);
    go = true;
  }
  changed.notify_all();
  must(blocking.wait());
  must(sampler.accept(6));
  EXPECT_EQ(must(sampler.next(logits)), 7);
}

}  // namespace
}  // namespace mlxn
