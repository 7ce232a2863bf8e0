#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "gtest/gtest.h"
#include "mlxn/encoder.h"
#include "mlxn/graph.h"
#include "tests/runtime/callables.h"

namespace mlxn::submission_suite {
namespace {

using namespace std::chrono_literals;
using test::callable;
using test::cpu;
using test::dispatch;
using test::eventually;
using test::fails_with;
using test::must;

/// A kernel that runs until it is let go.
class Gate {
 public:
  explicit Gate(const Device& device) {
    kernel_ = callable(device, {}, [this](const CallableArgs&) -> Result<void> {
      began_ = true;
      if (!eventually([this] { return open_.load(); })) return Error(ErrorCode::timeout);
      return {};
    });
  }
  void record(CommandEncoder& encoder) const { must(dispatch(encoder, kernel_, {})); }
  void open() { open_ = true; }
  [[nodiscard]] bool began() const { return eventually([this] { return began_.load(); }); }

 private:
  std::atomic<bool> open_{false}, began_{false};
  std::shared_ptr<const Kernel> kernel_;
};

Submission commit_fill(const Device& device, const Tensor& t, int value, const EncoderOptions& options = {}) {
  CommandEncoder encoder = must(device.encoder(options));
  must(encoder.fill(t, static_cast<std::byte>(value)));
  return must(encoder.commit());
}

TEST(Encoder, EmptyOnesCommitAndWait) {
  const Device device = cpu();
  must(must(device.encoder()).commit_and_wait());
  const Submission submission = must(must(device.encoder()).commit());
  must(submission.wait());
  EXPECT_EQ(submission.status(), Submission::Status::completed);
}

TEST(Encoder, CallsAfterCommitAreErrors) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  CommandEncoder encoder = must(device.encoder());
  EXPECT_EQ(encoder.state(), CommandEncoder::State::open);
  must(encoder.commit_and_wait());
  EXPECT_EQ(encoder.state(), CommandEncoder::State::committed);
  EXPECT_FALSE(encoder.device().defined());
  EXPECT_TRUE(fails_with(encoder.fill(t, std::byte{1}), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(encoder.barrier(), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(encoder.commit(), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(encoder.commit_and_wait(), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(encoder.parameter("p", 0), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(CommandEncoder().commit(), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(Submission().wait(), ErrorCode::wrong_state, {}));
}

TEST(Encoder, AbandonedWorkDoesNotRunAndLetsGo) {
  const Device device = cpu();
  Tensor t = must(device.allocate(DType::u8, {8}));
  {
    CommandEncoder encoder = must(device.encoder());
    must(encoder.fill(t, std::byte{1}));
  }
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 0);
  const std::weak_ptr<Allocation> watch = t.allocation();
  t = {};
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(device.counters().dispatches_executed, 0u);
}

TEST(Encoder, KeepsWhatItBindsAliveUntilTheWorkIsDoneAndNoLonger) {
  const Device device = cpu();
  Gate gate(device);
  Tensor t = must(device.allocate(DType::u8, {1000}));
  const std::weak_ptr<Allocation> watch = t.allocation();
  CommandEncoder encoder = must(device.encoder());
  gate.record(encoder);
  must(encoder.fill(t, std::byte{1}));
  t = {};
  const Submission submission = must(encoder.commit());
  ASSERT_TRUE(gate.began());
  EXPECT_FALSE(watch.expired());
  gate.open();
  must(submission.wait());
  EXPECT_TRUE(watch.expired());  // although the submission's handle lives
}

TEST(Encoder, EnqueuedUploadAndDownloadTakePartInTheOrder) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {6}));
  std::vector<std::byte> bytes(6, std::byte{5}), first(6), second(6);
  CommandEncoder encoder = must(device.encoder());
  must(encoder.upload(t, bytes));
  bytes.assign(6, std::byte{6});  // the encoder has its own copy
  must(encoder.download(first, t));
  must(encoder.fill(must(t.slice(0, 0, 1)), std::byte{7}));
  must(encoder.download(second, t));
  must(encoder.commit_and_wait());
  EXPECT_EQ(first, std::vector<std::byte>(6, std::byte{5}));
  EXPECT_EQ(second[0], std::byte{7});
  EXPECT_EQ(second[5], std::byte{5});
}

TEST(Encoder, CopiesRows) {
  const Device device = cpu();
  const Tensor from = must(device.allocate(DType::i32, {3, 2, 8})), to = must(device.allocate(DType::i32, {3, 2, 10}));
  {
    const auto data = must(from.write<std::int32_t>());
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::int32_t>(i) + 1;
  }
  const Tensor source = must(from.slice(2, 2, 7)), target = must(to.slice(2, 3, 8));
  must(device.copy(target, source));
  const auto data = must(to.read<std::int32_t>());
  for (std::int64_t i = 0; i < 60; ++i) {
    const std::int64_t row = i / 10, column = i % 10;
    EXPECT_EQ(data[static_cast<std::size_t>(i)], column >= 3 && column < 8 ? row * 8 + 2 + column - 3 + 1 : 0) << i;
  }
  CommandEncoder encoder = must(device.encoder());
  EXPECT_TRUE(fails_with(encoder.copy(target, must(from.slice(2, 0, 4))), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(encoder.copy(must(to.slice(2, 0, 5)), target), ErrorCode::aliased, {}));
  // Rows that are not evenly spaced, and elements that are no row.
  const Tensor uneven = must(must(to.slice(0, 0, 2)).permute({1, 0, 2}));
  EXPECT_TRUE(fails_with(encoder.copy(must(uneven.slice(2, 0, 8)), must(must(from.slice(0, 0, 2)).reshape({2, 2, 8}))), ErrorCode::bad_shape, {}));
  const Tensor square = must(device.allocate(DType::i32, {4, 4})), other = must(device.allocate(DType::i32, {4, 4}));
  EXPECT_TRUE(fails_with(encoder.copy(must(square.permute({1, 0})), other), ErrorCode::bad_shape, {}));
}

TEST(Submission, TellsLabelIntervalAndStatus) {
  const Device device = cpu();
  EncoderOptions options;
  options.label = "a label that is longer than any small string";
  const auto before = std::chrono::steady_clock::now();
  const Submission submission = commit_fill(device, must(device.allocate(DType::u8, {8})), 1, options);
  must(submission.wait());
  EXPECT_EQ(submission.label(), options.label);
  const auto interval = submission.interval();
  ASSERT_TRUE(interval);
  EXPECT_GE(interval->begin, before);
  EXPECT_GE(interval->end, interval->begin);
  EXPECT_TRUE(submission.poll());
}

TEST(Submission, RunsWithoutAnybodyWaiting) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  const Submission submission = commit_fill(device, t, 3);
  EXPECT_TRUE(eventually([&] { return submission.poll(); }));
  EXPECT_EQ(submission.status(), Submission::Status::completed);
}

TEST(Submission, BoundedWaitsTimeOut) {
  const Device device = cpu();
  Gate gate(device);
  CommandEncoder encoder = must(device.encoder());
  gate.record(encoder);
  const Submission submission = must(encoder.commit());
  const auto timed_out = submission.wait(2ms);
  EXPECT_TRUE(fails_with(timed_out, ErrorCode::timeout, {}));
  EXPECT_TRUE(timed_out.error().is_transient());
  EXPECT_TRUE(fails_with(submission.wait(0ns), ErrorCode::timeout, {}));
  EXPECT_TRUE(fails_with(submission.wait(-5ms), ErrorCode::timeout, {}));
  EXPECT_FALSE(submission.poll());
  EXPECT_FALSE(submission.interval());
  gate.open();
  must(submission.wait(20s));
  must(submission.wait(std::chrono::nanoseconds::max()));
  must(commit_fill(device, must(device.allocate(DType::u8, {8})), 1).wait(std::chrono::nanoseconds::max()));
}

TEST(Submission, SeveralThreadsMayWait) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {1 << 16}));
  for (int round = 0; round < 30; ++round) {
    const Submission submission = commit_fill(device, t, round);
    std::vector<std::thread> threads;
    std::atomic<int> waited{0};
    for (int i = 0; i < 6; ++i) {
      threads.emplace_back([&, i] {
        const Result<void> result = i % 2 == 0 ? submission.wait() : submission.wait(20s);
        waited += result && submission.poll() ? 1 : 0;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(waited, 6);
  }
}

TEST(Submission, CallbacksRunOnceOnAnotherThread) {
  const Device device = cpu();
  Gate gate(device);
  CommandEncoder encoder = must(device.encoder());
  gate.record(encoder);
  const Submission submission = must(encoder.commit());
  std::atomic<int> calls{0};
  std::atomic<bool> elsewhere{true};
  const auto here = std::this_thread::get_id();
  const auto count = [&](const Result<void>& result) {
    if (result) ++calls;
    if (std::this_thread::get_id() == here) elsewhere = false;
  };
  must(submission.on_complete(count));
  must(submission.on_complete([](const Result<void>&) { throw std::runtime_error("not the library's affair"); }));
  must(submission.on_complete(count));
  std::this_thread::sleep_for(2ms);
  EXPECT_EQ(calls, 0);
  gate.open();
  must(submission.wait());
  must(submission.on_complete(count));  // already done
  EXPECT_TRUE(eventually([&] { return calls == 3; }));
  EXPECT_TRUE(elsewhere);
  EXPECT_TRUE(fails_with(submission.on_complete(nullptr), ErrorCode::invalid_argument, {}));
}

TEST(Submission, CallbacksMayCommitAndWait) {
  DeviceOptions options;
  options.max_in_flight = 1;
  const Device device = cpu(2, options);
  const Tensor t = must(device.allocate(DType::u8, {8}));
  std::atomic<bool> done{false};
  must(commit_fill(device, t, 1).on_complete([&](const Result<void>&) {
    must(commit_fill(device, t, 2).wait());
    must(device.fill(t, std::byte{3}));
    done = true;
  }));
  EXPECT_TRUE(eventually([&] { return done.load(); }));
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 3);
}

TEST(Submission, CallbacksRunAlthoughAllHandlesAreGone) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> calls{0};
    {
      const Device device = cpu();
      const Submission submission = commit_fill(device, must(device.allocate(DType::u8, {8})), 1);
      for (int i = 0; i < 3; ++i) must(submission.on_complete([&](const Result<void>&) { ++calls; }));
    }
    ASSERT_TRUE(eventually([&] { return calls == 3; }));
  }
}

TEST(Queue, RefusesMoreThanItsLimitIfAsked) {
  DeviceOptions options;
  options.max_in_flight = 2;
  options.busy_when_full = true;
  const Device device = cpu(2, options);
  const Tensor t = must(device.allocate(DType::u8, {8}));
  Gate gate(device);
  CommandEncoder first = must(device.encoder());
  gate.record(first);
  const Submission blocked = must(first.commit());
  const Submission queued = commit_fill(device, t, 1);
  CommandEncoder third = must(device.encoder());
  must(third.fill(t, std::byte{2}));
  const auto busy = third.commit();
  EXPECT_TRUE(fails_with(busy, ErrorCode::busy, {"2"}));
  EXPECT_TRUE(busy.error().is_transient());
  EXPECT_EQ(third.state(), CommandEncoder::State::open);
  gate.open();
  must(queued.wait());
  must(must(third.commit()).wait());  // its work is still there
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 2);
}

TEST(Queue, CommitBlocksAtItsLimit) {
  DeviceOptions options;
  options.max_in_flight = 1;
  const Device device = cpu(2, options);
  Gate gate(device);
  CommandEncoder first = must(device.encoder());
  gate.record(first);
  const Submission blocked = must(first.commit());
  ASSERT_TRUE(gate.began());
  std::atomic<bool> committed{false};
  std::thread thread([&] {
    const Submission second = must(must(device.encoder()).commit());
    committed = true;
    must(second.wait());
  });
  std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(committed);
  gate.open();
  thread.join();
  EXPECT_TRUE(committed);
}

TEST(Queue, TenThousandSubmissionsWithoutDeadlock) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  Submission last;
  for (int i = 0; i < 10000; ++i) last = commit_fill(device, t, i % 200);
  must(last.wait());
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 9999 % 200);
  EXPECT_EQ(device.counters().submissions, 10000u);
  EXPECT_EQ(device.counters().dispatches_executed, 10000u);
}

TEST(Queue, IsInOrder) {
  const Device device = cpu();
  EncoderOptions options;
  options.queue = must(device.create_queue());
  const Tensor t = must(device.allocate(DType::u8, {8}));
  const Submission first = commit_fill(device, t, 1, options), second = commit_fill(device, t, 2, options);
  must(second.wait());
  EXPECT_TRUE(first.poll());
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 2);
}

TEST(Queue, WaitIdleEndsAlthoughOthersGoOn) {
  const Device device = cpu();
  const Queue queue = device.default_queue();
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) must(must(device.encoder()).commit());
  });
  for (int i = 0; i < 20; ++i) must(queue.wait_idle());
  stop = true;
  busy.join();
}

TEST(Threads, TwoWithAnEncoderEachOnOneDevice) {
  const Device device = cpu();
  std::atomic<int> wrong{0};
  const auto work = [&](int id) {
    const Tensor a = must(device.allocate(DType::u8, {5000})), b = must(device.allocate(DType::u8, {5000}));
    for (int i = 0; i < 200; ++i) {
      const auto value = static_cast<std::uint8_t>(id * 100 + i % 100);
      CommandEncoder encoder = must(device.encoder());
      must(encoder.fill(a, std::byte{value}));
      must(encoder.copy(b, a));
      if (i % 2 == 0) {
        must(encoder.commit_and_wait());
      } else {
        must(must(encoder.commit()).wait());
      }
      const auto data = must(b.read<std::uint8_t>());
      if (data[0] != value || data[4999] != value) ++wrong;
    }
  };
  std::thread one([&] { work(0); }), two([&] { work(1); });
  one.join();
  two.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(device.counters().dispatches_executed, 800u);
}

TEST(Threads, TwoQueuesOfOneDevice) {
  const Device device = cpu();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int id = 0; id < 2; ++id) {
    threads.emplace_back([&, id] {
      EncoderOptions options;
      options.queue = must(device.create_queue());
      const Tensor t = must(device.allocate(DType::u8, {3000}));
      for (int i = 0; i < 200; ++i) {
        must(commit_fill(device, t, id + i % 100, options).wait());
        if (must(t.read<std::uint8_t>())[2999] != id + i % 100) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace mlxn::submission_suite
