// Queues, graphs, faults and kernels of the user on the stand-in of the CUDA runtime.
#include "backends/allocation.h"
#include "backends/gpu/launch.h"
#include "backends/queue_impl.h"
#include "mlxn/native/cuda.h"
#include "tests/cuda_host/support.h"

namespace mlxn {
namespace {

using namespace std::chrono_literals;
using test::fails_with;
using test::must;

TEST_F(Cuda, WorkEndsAlthoughNobodyWaits) {
  const Device device = cuda();
  Tensor t = must(device.allocate(DType::u32, {16}));
  const std::weak_ptr<Allocation> watch = t.allocation();
  fake::Hold hold;
  const Submission submission = commit_fill(device, t, 5);
  t = {};
  EXPECT_FALSE(submission.poll());
  EXPECT_EQ(submission.status(), Submission::Status::running);
  EXPECT_FALSE(submission.interval());
  EXPECT_FALSE(watch.expired());
  EXPECT_TRUE(fails_with(submission.wait(2ms), ErrorCode::timeout, {}));
  EXPECT_TRUE(fails_with(submission.wait(0ns), ErrorCode::timeout, {}));
  hold.release();
  EXPECT_TRUE(eventually([&] { return submission.poll(); }));
  EXPECT_EQ(submission.status(), Submission::Status::completed);
  EXPECT_TRUE(watch.expired());
  EXPECT_GE(submission.interval()->end, submission.interval()->begin);
  EXPECT_EQ(submission.counters().dispatches_executed, 1u);
}

TEST_F(Cuda, HandlesMayGoAwayWhileWorkRuns) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> calls{0};
    {
      const Device device = cuda();
      Tensor one = must(device.allocate(DType::u8, {8})), two = must(device.allocate(DType::u8, {8}));
      fake::Hold hold;
      const Submission submission = commit_fill(device, one, 1);
      for (int i = 0; i < 3; ++i) must(submission.on_complete([&](const Result<void>& result) { calls += result ? 1 : 0; }));
      commit_fill(device, two, 2);
    }
    ASSERT_TRUE(eventually([&] { return calls == 3 && fake::live_objects() == 0; }));
  }
}

TEST_F(Cuda, CallbacksRunOnceOnAnotherThread) {
  const Device device = cuda();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  fake::Hold hold;
  const Submission submission = commit_fill(device, t, 1);
  std::atomic<int> calls{0};
  std::atomic<bool> elsewhere{true};
  const auto here = std::this_thread::get_id();
  const auto count = [&](const Result<void>&) {
    ++calls;
    if (std::this_thread::get_id() == here) elsewhere = false;
  };
  must(submission.on_complete(count));
  must(submission.on_complete([](const Result<void>&) { throw 1; }));
  must(submission.on_complete([&](const Result<void>&) {
    must(commit_fill(device, t, 2).wait());
    must(device.fill(t, std::byte{3}));
    ++calls;
  }));
  std::this_thread::sleep_for(2ms);
  EXPECT_EQ(calls, 0);
  hold.release();
  must(submission.wait());
  must(submission.on_complete(count));  // already done
  EXPECT_TRUE(eventually([&] { return calls == 3; }));
  EXPECT_TRUE(elsewhere);
}

TEST_F(Cuda, CallbackOfWorkThatIsWaitedFor) {
  const Device device = cuda();
  const Tensor t = must(device.allocate(DType::u32, {4}));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) { return encoder.fill(t, std::byte{1}); }));
  std::atomic<int> calls{0};
  for (int i = 0; i < 20; ++i) {
    const Submission submission = must(graph.replay());
    must(submission.on_complete([&](const Result<void>&) { ++calls; }));
    must(submission.wait());
  }
  EXPECT_TRUE(eventually([&] { return calls == 20; }));
}

TEST_F(Cuda, TheLimitOfUnfinishedWorkBlocksOrRefuses) {
  DeviceOptions options;
  options.max_in_flight = 2;
  options.busy_when_full = true;
  {
    const Device device = cuda(options);
    const Tensor t = must(device.allocate(DType::u32, {2}));
    fake::Hold hold;
    commit_fill(device, t, 1);
    const Submission second = commit_fill(device, t, 2);
    CommandEncoder third = must(device.encoder());
    must(third.fill(t, std::byte{3}));
    EXPECT_TRUE(fails_with(third.commit(), ErrorCode::busy, {"2"}));
    EXPECT_EQ(third.state(), CommandEncoder::State::open);
    hold.release();
    must(second.wait());
    must(third.commit_and_wait());
    EXPECT_EQ(words(device, t)[0], 0x03030303u);
  }
  options.busy_when_full = false;
  options.max_in_flight = 1;
  const Device device = cuda(options);
  const Tensor t = must(device.allocate(DType::u32, {2}));
  fake::Hold hold;
  const Submission first = commit_fill(device, t, 1);
  std::atomic<bool> committed{false};
  std::thread thread([&] {
    const Submission second = commit_fill(device, t, 2);
    committed = true;
    must(second.wait());
  });
  std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(committed);
  hold.release();
  thread.join();
}

TEST_F(Cuda, WaitIdleAndManySubmissionsFromManyThreads) {
  const Device device = cuda();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      EncoderOptions options;
      if (id % 2 == 1) options.queue = must(device.create_queue());
      const Tensor t = must(device.allocate(DType::u32, {3}));
      for (int i = 0; i < 300; ++i) {
        const Submission submission = commit_fill(device, t, i % 200, options);
        if (i % 3 == 0) must(submission.wait());
        if (i % 3 == 1) must((id % 2 == 1 ? options.queue : device.default_queue()).wait_idle());
        if (i % 3 == 2) continue;
        if (words(device, t)[2] != static_cast<std::uint32_t>(i % 200) * 0x01010101u) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  must(device.default_queue().wait_idle());
  EXPECT_EQ(device.counters().submissions, 1200u);
}

TEST_F(Cuda, EnqueuedTransfersTakePartInTheOrder) {
  const Device device = cuda();
  const Tensor t = must(device.allocate(DType::u8, {100000}));
  std::vector<std::byte> bytes(100000, std::byte{5}), first(100000), second(100000);
  const Tensor pinned = must(device.allocate(DType::u8, {100000}, {.kind = MemoryKind::pinned}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.upload(t, bytes));
  bytes.assign(100000, std::byte{6});  // the encoder has its own copy
  must(encoder.download(first, t));
  must(encoder.fill(must(t.slice(0, 0, 1)), std::byte{7}));
  must(encoder.download(second, t));
  must(encoder.download(std::span(static_cast<std::byte*>(pinned.unsafe_data()), 100000), t));
  fake::Hold hold;
  const Submission submission = must(encoder.commit());
  std::this_thread::sleep_for(1ms);
  EXPECT_EQ(first[0], std::byte{0});
  hold.release();
  must(submission.wait());
  EXPECT_EQ(first, std::vector<std::byte>(100000, std::byte{5}));
  EXPECT_EQ(second[0], std::byte{7});
  EXPECT_EQ(second[99999], std::byte{5});
  EXPECT_EQ(must(pinned.read<std::byte>())[0], std::byte{7});
}

/// The rows [3, 2, 2..7) of one tensor into [3, 2, 3..8) of another.
void record_rows(CommandEncoder& encoder, const Tensor& to, const Tensor& from) {
  must(encoder.copy(must(to.slice(2, 3, 8)), must(from.slice(2, 2, 7))));
}

TEST_F(Cuda, AGraphIsOneLaunchAndTakesParameters) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {100}));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_TRY(const auto index, encoder.parameter("index", 3));
    MLXN_TRY(const auto value, encoder.parameter("value", 30));
    MLXN_CHECK(set_element(encoder, y, index, value));
    return set_element(encoder, y, 99, value);
  }));
  EXPECT_EQ(fake::calls("cudaGraphCreate"), 0);
  must(graph.replay_and_wait());
  const int memory = fake::calls("cudaMalloc") + fake::calls("cudaHostAlloc"), events = fake::calls("cudaEventCreateWithFlags");
  const int blocking = fake::calls("cudaStreamSynchronize"), copies = fake::calls("cudaMemcpyAsync"), records = fake::calls("cudaEventRecord");
  for (int i = 4; i < 50; ++i) {
    must(graph.set("index", i));
    must(graph.set("value", i * 10));
    must(graph.replay_and_wait());
  }
  EXPECT_EQ(fake::calls("cudaGraphInstantiate"), 1);
  EXPECT_EQ(fake::calls("cudaGraphLaunch"), 47);
  EXPECT_EQ(fake::calls("cudaLaunchKernelExC"), 0);
  EXPECT_EQ(fake::calls("cudaStreamSynchronize"), blocking);
  EXPECT_EQ(fake::calls("cudaMemcpyAsync"), copies);
  EXPECT_EQ(fake::calls("cudaEventRecord"), records + 2 * 46);
  EXPECT_EQ(fake::calls("cudaMalloc") + fake::calls("cudaHostAlloc"), memory);
  EXPECT_EQ(fake::calls("cudaEventCreateWithFlags"), events);
  EXPECT_EQ(device.counters().graph_launches, 47u);
  EXPECT_EQ(device.counters().syncs, 47u);
  EXPECT_EQ(device.counters().dispatches_executed, 94u);
  const auto values = words(device, y);
  for (std::uint32_t i = 3; i < 50; ++i) EXPECT_EQ(values[i], i * 10);
  EXPECT_EQ(values[99], 490u);
  EXPECT_TRUE(fails_with(graph.set("index", 100), ErrorCode::out_of_range, {}));
  {
    fake::Hold hold;
    const Submission submission = must(graph.replay());
    EXPECT_TRUE(fails_with(graph.set("index", 1), ErrorCode::wrong_state, {"unfinished"}));
    hold.release();
    must(submission.wait());
    must(graph.set("index", 1));
  }
  const Tensor z = must(device.allocate(DType::u32, {100}));
  must(graph.rebind(y, z));
  must(graph.replay_and_wait());
  must(graph.replay_and_wait());
  EXPECT_EQ(fake::calls("cudaGraphInstantiate"), 2);
  EXPECT_EQ(words(device, z)[1], 490u);
  EXPECT_EQ(words(device, y)[1], 0u);
}

TEST_F(Cuda, EveryKindOfNodeInAGraphAndOutsideOfOne) {
  const Device device = cuda();
  std::vector<std::uint32_t> numbers(3 * 2 * 8);
  std::iota(numbers.begin(), numbers.end(), 1u);
  std::vector<std::uint32_t> results[3];
  for (int how = 0; how < 3; ++how) {
    const Tensor from = must(device.allocate(DType::u32, {3, 2, 8})), to = must(device.allocate(DType::u32, {3, 2, 10}));
    const Tensor same = must(device.allocate(DType::u32, {3, 2, 8}));
    std::vector<std::uint32_t> back(60);
    const auto record = [&](CommandEncoder& encoder) -> Result<void> {
      MLXN_CHECK(encoder.upload(same, std::as_bytes(std::span(numbers))));
      MLXN_CHECK(encoder.copy(from, same));
      record_rows(encoder, to, from);
      MLXN_CHECK(encoder.fill(must(to.slice(0, 2, 3)), std::byte{1}));
      MLXN_CHECK(set_element(encoder, must(to.reshape({60})), 0, 77));
      return encoder.download(std::as_writable_bytes(std::span(back)), to);
    };
    if (how == 0) {
      must(test::run(device, record));
    } else {
      EncoderOptions options;
      options.hazards = how == 1 ? HazardMode::automatic : HazardMode::serial;
      Graph graph = must(Graph::record(device, record, options));
      must(graph.replay_and_wait());
      back.assign(60, 0);
      must(graph.replay_and_wait());
    }
    results[how] = back;
  }
  EXPECT_EQ(results[0][0], 77u);
  EXPECT_EQ(results[0][3], 3u);
  EXPECT_EQ(results[0][17], 15u);
  EXPECT_EQ(results[0][59], 0x01010101u);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

struct MarkArgs {
  InOut<std::uint32_t> y;
};
/// What a kernel saw of its launch.
struct Seen {
  std::uint64_t shared_bytes;
  std::uint32_t cluster;
  bool starts_early;
  friend bool operator==(const Seen&, const Seen&) = default;
};

TEST_F(Cuda, NothingStartsEarlyWhereTheCodeDoesNotWait) {
  fake::Options options;
  options.capability = 80;  // runs instructions that its driver compiles, which have no waits
  fake::reset(options);
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  std::vector<bool> early;
  fake::define_kernel("mark", {sizeof(MarkArgs)}, [&](const fake::Launch& launch) { early.push_back(launch.starts_early); });
  const gpu::KernelInfo info{"mark", 128, 0, sizeof(MarkArgs), 0, {}, true};
  info.device_function = fake::function_of("mark");
  const auto record = [&](CommandEncoder& encoder) -> Result<void> {
    Launch<MarkArgs> launch;
    launch.bind(launch.args.y, y);
    const gpu::Kernel<MarkArgs> kernel{&info};
    MLXN_CHECK(gpu::encode(encoder, kernel, {1}, launch));
    return gpu::encode(encoder, kernel, {1}, launch);
  };
  must(test::run(device, record));
  Graph graph = must(Graph::record(device, record));
  must(graph.replay_and_wait());
  EXPECT_EQ(early, std::vector<bool>(4, false));
}

TEST_F(Cuda, KernelsOfOneArchitectureGetWhatTheirHandlesSay) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  std::vector<Seen> seen;
  fake::define_kernel("mark", {sizeof(MarkArgs)}, [&](const fake::Launch& launch) {
    seen.push_back({launch.shared_bytes, launch.cluster.x * launch.cluster.y * launch.cluster.z, launch.starts_early});
  });
  const gpu::KernelInfo plain{"mark", 128, 0, sizeof(MarkArgs)};
  const gpu::KernelInfo large{"mark", 384, 1024, sizeof(MarkArgs), 200 << 10, {2, 1, 1}, true};
  for (const gpu::KernelInfo* kernel : {&plain, &large}) kernel->device_function = fake::function_of("mark");
  const auto record = [&](CommandEncoder& encoder) -> Result<void> {
    Launch<MarkArgs> launch;
    launch.bind(launch.args.y, y);
    const gpu::Kernel<MarkArgs> first{&plain}, second{&large};
    MLXN_CHECK(gpu::encode(encoder, first, {4}, launch));
    MLXN_CHECK(gpu::encode(encoder, second, {4}, launch));
    MLXN_CHECK(encoder.fill(y, std::byte{1}));
    MLXN_CHECK(gpu::encode(encoder, second, {4}, launch));
    return gpu::encode(encoder, second, {4}, launch);
  };
  must(test::run(device, record));
  const Seen as_plain{0, 1, false}, as_large{200 << 10, 2, true}, late{200 << 10, 2, false};
  EXPECT_EQ(seen, (std::vector{as_plain, as_large, as_large, as_large}));
  seen.clear();
  Graph graph = must(Graph::record(device, record));
  must(graph.replay_and_wait());
  EXPECT_EQ(seen, (std::vector{as_plain, as_large, late, as_large}));  // after the fill there is no kernel to overlap
  seen.clear();
  EncoderOptions serial;
  serial.hazards = HazardMode::serial;
  CommandEncoder encoder = must(device.encoder(serial));
  must(record(encoder));
  must(encoder.commit_and_wait());
  EXPECT_EQ(seen, (std::vector{as_plain, late, late, late}));
  EncoderOptions plain_edges;
  plain_edges.early_starts = false;
  CommandEncoder in_order = must(device.encoder(plain_edges));
  must(record(in_order));
  seen.clear();
  must(in_order.commit_and_wait());
  EXPECT_EQ(seen, (std::vector{as_plain, late, late, late}));
  seen.clear();
  Graph plain_graph = must(Graph::record(device, record, plain_edges));
  must(plain_graph.replay_and_wait());
  EXPECT_EQ(seen, (std::vector{as_plain, late, late, late}));
  EXPECT_EQ(fake::calls("cudaFuncSetAttribute"), 1);  // of the device that it runs on, once

  const Device second = must(Device::open("cuda:1"));
  const Tensor z = must(second.allocate(DType::u32, {4}));
  Launch<MarkArgs> launch;
  launch.bind(launch.args.y, z);
  const gpu::Kernel<MarkArgs> handle{&large};
  must(test::run(second, [&](CommandEncoder& e) { return gpu::encode(e, handle, {2}, launch); }));
  EXPECT_EQ(fake::calls("cudaFuncSetAttribute"), 2);

  EXPECT_TRUE(fails_with(test::run(second, [&](CommandEncoder& e) { return gpu::encode(e, handle, {3}, launch); }), ErrorCode::internal, {"clusters of 2"}));
  const gpu::KernelInfo too_large{"mark", 128, 1024, sizeof(MarkArgs), 227 << 10};
  const gpu::Kernel<MarkArgs> none{&too_large};
  EXPECT_TRUE(fails_with(test::run(second, [&](CommandEncoder& e) { return gpu::encode(e, none, {1}, launch); }), ErrorCode::limit_exceeded,
                         {"mark", "233472", "232448"}));
  const gpu::KernelInfo refused{"mark", 128, 0, sizeof(MarkArgs), 100 << 10};
  refused.device_function = fake::function_of("mark");
  const gpu::Kernel<MarkArgs> third{&refused};
  fake::fail_next_call("cudaFuncSetAttribute", cudaErrorInvalidValue);
  EXPECT_TRUE(fails_with(test::run(second, [&](CommandEncoder& e) { return gpu::encode(e, third, {1}, launch); }), ErrorCode::device,
                         {"mark", "102400 bytes of shared memory"}));
  must(test::run(second, [&](CommandEncoder& e) { return gpu::encode(e, third, {1}, launch); }));
}

TEST_F(Cuda, AGraphThatCannotBeMadeIsAnErrorOfItsReplay) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {100}));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_CHECK(set_element(encoder, y, 1, 2));
    MLXN_CHECK(encoder.fill(must(y.slice(0, 4, 8)), std::byte{1}));
    return encoder.copy(must(y.slice(0, 8, 10)), must(y.slice(0, 0, 2)));
  }));
  for (const char* call : {"cudaGraphCreate", "cudaGraphAddKernelNode", "cudaGraphAddMemsetNode", "cudaGraphAddMemcpyNode1D",
                           "cudaGraphInstantiate", "cudaGraphLaunch"}) {
    fake::fail_next_call(call, cudaErrorMemoryAllocation);
    EXPECT_TRUE(fails_with(graph.replay_and_wait(), ErrorCode::out_of_memory, {"graph"})) << call;
  }
  must(graph.replay_and_wait());
  EXPECT_EQ(words(device, y)[9], 2u);
}

TEST_F(Cuda, ALaunchThatFailsNamesItsKernelAndNothingElseBreaks) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  CommandEncoder encoder = must(device.encoder(labelled("a label")));
  must(encoder.fill(y, std::byte{1}));
  must(set_element(encoder, y, 0, 2));
  must(encoder.fill(y, std::byte{3}));
  fake::fail_next_call("cudaLaunchKernelExC", cudaErrorLaunchOutOfResources);
  EXPECT_TRUE(fails_with(encoder.commit_and_wait(), ErrorCode::device, {"a label", "set_element_u32", "cudaErrorLaunchOutOfResources"}));
  EXPECT_EQ(words(device, y)[0], 0x01010101u);  // what came before has run, what came after has not
  must(device.fill(y, std::byte{4}));
  for (const char* call : {"cudaEventRecord", "cudaMemsetAsync"}) {
    fake::fail_next_call(call, cudaErrorInvalidValue);
    EXPECT_TRUE(fails_with(device.fill(y, std::byte{5}), ErrorCode::device, {})) << call;
    must(device.fill(y, std::byte{6}));
  }
}

TEST_F(Cuda, AnErrorNobodyReadIsToldOnce) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  fake::fail_next_call("cudaMemsetAsync", cudaErrorInvalidValue);
  commit_fill(device, y, 1);
  EXPECT_TRUE(eventually([&] { return device.counters().dispatches_executed == 0 && !device.default_queue().wait_idle(); }));
  must(device.default_queue().wait_idle());
  must(device.fill(y, std::byte{2}));
}

TEST_F(Cuda, AFaultLosesTheDeviceAndNothingHangs) {
  Submission first, second, other;
  {
    const Device device = cuda();
    EncoderOptions options;
    options.queue = must(device.create_queue());
    const Tensor y = must(device.allocate(DType::u32, {4}));
    Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) { return set_element(encoder, y, 1, 2); }));
    must(graph.replay_and_wait());
    CommandEncoder open = must(device.encoder());
    must(open.fill(y, std::byte{1}));
    std::atomic<int> failed{0};
    {
      fake::Hold hold;
      CommandEncoder encoder = must(device.encoder(labelled("the culprit")));
      must(set_element(encoder, y, 0, 2));
      first = must(encoder.commit());
      second = commit_fill(device, y, 1);
      must(second.on_complete([&](const Result<void>& result) { failed += result ? 0 : 1; }));
      break_device();
      hold.release();
      EXPECT_TRUE(fails_with(first.wait(), ErrorCode::device, {"the culprit", "illegal memory access", "set_element_u32"}));
    }
    EXPECT_EQ(first.status(), Submission::Status::failed);
    EXPECT_TRUE(fails_with(second.wait(), ErrorCode::device_lost, {"illegal memory access", "set_element_u32"}));
    EXPECT_TRUE(eventually([&] { return failed == 1; }));
    const auto lost = [](const auto& result) { return fails_with(result, ErrorCode::device_lost, {"illegal memory access"}); };
    EXPECT_TRUE(lost(device.allocate(DType::u8, {1})));
    EXPECT_TRUE(lost(device.encoder()));
    EXPECT_TRUE(lost(open.commit()));
    EXPECT_TRUE(lost(graph.replay()));
    EXPECT_TRUE(lost(graph.replay_and_wait()));
    EXPECT_TRUE(lost(device.create_queue()));
    EXPECT_TRUE(lost(native::cuda_queue(device, nullptr)));
    std::byte byte{};
    EXPECT_TRUE(lost(device.upload(must(must(y.reinterpret(DType::u8, {16})).slice(0, 0, 1)), std::span(&byte, 1))));
    EXPECT_TRUE(lost(device.download(std::span(&byte, 1), must(must(y.reinterpret(DType::u8, {16})).slice(0, 0, 1)))));
    EXPECT_TRUE(lost(device.import_memory(&byte, 1, nullptr, DType::u8, {1})));
    EXPECT_EQ(device.free_bytes(), 0u);
    must(options.queue.wait_idle());
    EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::device_lost, {"another process"}));
  }
  EXPECT_TRUE(fails_with(second.wait(), ErrorCode::device_lost, {}));
}

TEST_F(Cuda, ATransferThatMeetsAFaultTellsIt) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  break_device(cudaErrorMisalignedAddress);
  std::vector<std::uint32_t> values(4);
  EXPECT_TRUE(fails_with(device.download(std::as_writable_bytes(std::span(values)), y), ErrorCode::device, {"cuda"}));
  EXPECT_TRUE(fails_with(device.fill(y, std::byte{1}), ErrorCode::device_lost, {"first fault"}));
}

/// Whether the error is of the device's fault: `device` for whoever is told first, which may be a thread of the library,
/// device_lost for all others.
template <class T>
testing::AssertionResult tells_fault(const Result<T>& result, std::initializer_list<std::string_view> words) {
  const bool is_first = !result && result.error().code() == ErrorCode::device;
  return fails_with(result, is_first ? ErrorCode::device : ErrorCode::device_lost, words);
}

/// Work that breaks the device as soon as it is let go.
Submission commit_culprit(const Device& device, const Tensor& y, const Queue& queue = {}) {
  EncoderOptions options;
  options.queue = queue;
  CommandEncoder encoder = must(device.encoder(options));
  must(set_element(encoder, y, 0, 2));
  return must(encoder.commit());
}

TEST_F(Cuda, AFaultThatALaterLaunchMeetsIsNotItsOwn) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.fill(y, std::byte{1}));
  Queue queue = must(device.create_queue());
  fake::Hold hold;
  const Submission culprit = commit_culprit(device, y, queue);
  break_device();
  hold.release();
  ASSERT_TRUE(eventually([] { return fake::is_broken(); }));
  const auto result = encoder.commit_and_wait();
  EXPECT_TRUE(tells_fault(result, {"illegal memory access", "set_element_u32"}));
  EXPECT_EQ(result.error().message().find("fill"), std::string::npos) << result.error().message();
  EXPECT_TRUE(tells_fault(culprit.wait(), {"set_element_u32"}));
}

TEST_F(Cuda, AFaultThatALaunchReturnsIsOfWhatWasLaunchedBefore) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.fill(y, std::byte{1}));
  must(set_element(encoder, y, 0, 2));
  fake::fail_next_call("cudaLaunchKernelExC", cudaErrorIllegalAddress);
  const auto result = encoder.commit_and_wait();
  EXPECT_TRUE(fails_with(result, ErrorCode::device, {"illegal memory access", "unfinished work: fill"}));
  EXPECT_EQ(result.error().message().find("set_element"), std::string::npos) << result.error().message();
  // The stand-in fills all the same: y has to live until then.
  const auto* last = reinterpret_cast<const volatile std::byte*>(y.allocation()->data()) + y.bytes() - 1;
  ASSERT_TRUE(eventually([&] { return *last == std::byte{1}; }));
}

TEST_F(Cuda, ATransferOrAnAllocationThatMeetsAFaultIsNotBlamed) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  fake::Hold hold;
  const Submission culprit = commit_culprit(device, y);
  break_device();
  hold.release();
  ASSERT_TRUE(eventually([] { return fake::is_broken(); }));
  const auto result = device.allocate(DType::u8, {1000});
  EXPECT_TRUE(tells_fault(result, {"illegal memory access", "unfinished work: set_element_u32"}));
  EXPECT_EQ(result.error().message().find("allocat"), std::string::npos) << result.error().message();
}

TEST_F(Cuda, AFaultTellsTheUnfinishedWorkOfAllQueues) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4})), z = must(device.allocate(DType::u32, {4}));
  EncoderOptions options;
  options.queue = must(device.create_queue());
  fake::Hold hold;
  const Submission culprit = commit_culprit(device, y, options.queue), bystander = commit_fill(device, z, 1);
  break_device();
  hold.release();
  EXPECT_TRUE(tells_fault(bystander.wait(), {"illegal memory access", "unfinished work: ", "set_element_u32", "fill"}));
  EXPECT_TRUE(tells_fault(culprit.wait(), {"set_element_u32"}));
}

TEST_F(Cuda, InSerialModeAFaultOfEarlierWorkIsNotTheFirstKernels) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  EncoderOptions options;
  options.hazards = HazardMode::serial;
  CommandEncoder encoder = must(device.encoder(options));
  must(encoder.fill(y, std::byte{1}));
  fake::Hold hold;
  const Submission culprit = commit_culprit(device, y);
  break_device();
  std::thread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    hold.release();
  });
  const auto result = encoder.commit_and_wait();
  release.join();
  EXPECT_TRUE(tells_fault(result, {"illegal memory access", "set_element_u32"}));
  EXPECT_EQ(result.error().message().find("fill"), std::string::npos) << result.error().message();
}

// ---- deleters -----------------------------------------------------------------------------------------------------------

/// Memory of the device under a deleter of the caller.
Tensor imported(const Device& device, const Tensor& source, std::function<void()> deleter) {
  return must(device.import_memory(must(native::cuda_pointer(source)), source.bytes(), std::move(deleter), source.dtype(), source.shape()));
}

TEST_F(Cuda, ADeleterMayCommitWork) {
  DeviceOptions options;
  options.max_in_flight = 1;
  const Device device = cuda(options);
  const Tensor source = must(device.allocate(DType::u32, {4})), other = must(device.allocate(DType::u32, {4}));
  std::atomic<int> committed{0};
  for (int round = 0; round < 20; ++round) {
    // The deleter runs as the first submission ends, where the second commit makes room for itself or on the lane.
    fake::Hold hold;
    Tensor t = imported(device, source, [&] {
      CommandEncoder encoder = must(device.encoder());
      must(encoder.fill(other, std::byte{7}));
      must(encoder.commit());
      ++committed;
    });
    commit_fill(device, t, 1);
    t = {};
    std::thread release([&] { hold.release(); });
    must(commit_fill(device, source, 2).wait());
    release.join();
  }
  must(device.default_queue().wait_idle());
  EXPECT_EQ(committed, 20);
}

TEST_F(Cuda, ADeleterThatWouldWaitForItselfIsToldSo) {
  const Device device = cuda();
  const Tensor source = must(device.allocate(DType::u32, {4})), other = must(device.allocate(DType::u32, {4}));
  const Queue queue = must(device.create_queue());
  std::vector<Result<void>> results;
  Tensor t = imported(device, source, [&] {
    results.push_back(device.fill(other, std::byte{7}));
    results.push_back(device.default_queue().wait_idle());
    EncoderOptions options;
    options.queue = queue;
    results.push_back(commit_fill(device, other, 8, options).wait());
  });
  fake::Hold hold;
  const Submission submission = commit_fill(device, t, 1);
  t = {};
  hold.release();
  must(submission.wait());
  ASSERT_EQ(results.size(), 3u);
  EXPECT_TRUE(fails_with(results[0], ErrorCode::wrong_state, {"deleter"}));
  EXPECT_TRUE(fails_with(results[1], ErrorCode::wrong_state, {"deleter"}));
  EXPECT_TRUE(results[2]);
  must(device.default_queue().wait_idle());
}

TEST_F(Cuda, InSerialModeAFaultNamesItsKernel) {
  const Device device = cuda();
  const Tensor y = must(device.allocate(DType::u32, {4}));
  EncoderOptions options;
  options.hazards = HazardMode::serial;
  CommandEncoder encoder = must(device.encoder(options));
  must(set_element(encoder, y, 0, 2));
  must(encoder.fill(y, std::byte{1}));
  break_device();
  const auto result = encoder.commit_and_wait();
  EXPECT_TRUE(fails_with(result, ErrorCode::device, {"illegal memory access"}));
  EXPECT_EQ(result.error().message().find("fill"), std::string::npos) << result.error().message();
}

// ---- kernels of the user ------------------------------------------------------------------------------------------------

constexpr const char* kScale = R"(
struct Constants { float factor; unsigned count; };
extern "C" __global__ void scale_by(const float* x, float* y, Constants c) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < c.count) y[i] = x[i] * c.factor;
}
)";
struct Constants {
  float factor;
  std::uint32_t count;
};

KernelInfo scale_info(std::string name = "scale_by") {
  KernelInfo info;
  info.name = std::move(name);
  info.bindings = {{Access::in, 4, 4}, {Access::out, 4, 4}};
  info.constants_bytes = sizeof(Constants);
  return info;
}

class UserKernels : public Cuda {
 protected:
  void SetUp() override {
    Cuda::SetUp();
    fake::define_kernel("scale_by", {8, 8, sizeof(Constants)}, [](const fake::Launch& launch) {
      const auto* const x = launch.param<const float*>(0);
      auto* const y = launch.param<float*>(1);
      const auto c = launch.param<Constants>(2);
      for (unsigned i = 0; i < launch.grid.x * launch.threads.x; ++i) {
        if (i < c.count) y[i] = x[i] * c.factor;
      }
    });
    device_ = cuda();
    const auto probe = device_.kernels().register_cuda_source(scale_info(), {.code = kScale});
    if (!probe && probe.error().code() == ErrorCode::unsupported) GTEST_SKIP() << probe.error().message();
    kernel_ = must(probe);
  }
  void TearDown() override {
    kernel_ = {};
    device_ = {};
    Cuda::TearDown();
  }
  Result<void> dispatch(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float factor, std::uint32_t count) {
    const Constants constants{factor, count};
    const CommandEncoder::Binding bindings[] = {{x, Access::in}, {y, Access::out}};
    return encoder.dispatch({kernel_, bindings, std::as_bytes(std::span(&constants, 1)), count, {}});
  }
  Device device_;
  std::shared_ptr<const Kernel> kernel_;
};

TEST_F(UserKernels, RunWithTheirBindingsAndConstants) {
  const Tensor x = must(device_.allocate(DType::f32, {1000})), y = must(device_.allocate(DType::f32, {1000}));
  std::vector<float> values(1000);
  std::iota(values.begin(), values.end(), 0.0f);
  must(device_.upload(x, std::as_bytes(std::span(values))));
  must(test::run(device_, [&](CommandEncoder& encoder) { return dispatch(encoder, x, y, 3.0f, 999); }));
  must(device_.download(std::as_writable_bytes(std::span(values)), y));
  EXPECT_EQ(values[998], 2994.0f);
  EXPECT_EQ(values[999], 0.0f);
  Graph graph = must(Graph::record(device_, [&](CommandEncoder& encoder) { return dispatch(encoder, x, y, 5.0f, 1000); }));
  must(graph.replay_and_wait());
  const Tensor z = must(device_.allocate(DType::f32, {1000}));
  must(graph.rebind(y, z));
  must(graph.replay_and_wait());
  must(device_.download(std::as_writable_bytes(std::span(values)), z));
  EXPECT_EQ(values[999], 4995.0f);
}

TEST_F(UserKernels, AreCompiledOnceAndOutliveTheirDevice) {
  const int loaded = fake::calls("cudaLibraryLoadData");
  const auto again = must(device_.kernels().register_cuda_source(scale_info("another_name"), {.code = kScale, .entry = "scale_by"}));
  EXPECT_EQ(again->code(), kernel_->code());
  EXPECT_EQ(fake::calls("cudaLibraryLoadData"), loaded);
  must(device_.kernels().register_cuda_source(scale_info(), {.code = kScale, .group_threads = 128}));
  EXPECT_EQ(fake::calls("cudaLibraryLoadData"), loaded + 1);
  EXPECT_EQ(must(device_.kernels().find("another_name")), again);
  device_ = {};
}

TEST_F(UserKernels, ThatCannotRunAreRefused) {
  KernelRegistry& kernels = device_.kernels();
  const auto broken = kernels.register_cuda_source(scale_info("broken"), {.code = "extern \"C\" __global__ void broken() { nothing; }"});
  EXPECT_TRUE(fails_with(broken, ErrorCode::compile, {"broken", "nothing", "undefined"}));
  EXPECT_TRUE(fails_with(kernels.find("broken"), ErrorCode::not_found, {}));
  EXPECT_TRUE(fails_with(kernels.register_cuda_source(scale_info("x"), {.code = kScale, .entry = "absent"}), ErrorCode::not_found, {"absent"}));
  KernelInfo fewer = scale_info("x");
  fewer.bindings.pop_back();
  EXPECT_TRUE(fails_with(kernels.register_cuda_source(fewer, {.code = kScale, .entry = "scale_by"}), ErrorCode::invalid_argument, {"3 parameters", "2"}));
  KernelInfo larger = scale_info("x");
  larger.constants_bytes = 12;
  EXPECT_TRUE(fails_with(kernels.register_cuda_source(larger, {.code = kScale, .entry = "scale_by"}), ErrorCode::invalid_argument, {"8 bytes", "12"}));
  for (const std::uint32_t threads : {0u, 513u, 1025u}) {
    EXPECT_TRUE(fails_with(kernels.register_cuda_source(scale_info(), {.code = kScale, .group_threads = threads}), ErrorCode::limit_exceeded, {"threads"}));
  }
  EXPECT_TRUE(fails_with(kernels.register_cuda_source(scale_info(), {.code = kScale, .shared_bytes = 300000}), ErrorCode::limit_exceeded, {"300000"}));
  must(kernels.register_cuda_source(scale_info(), {.code = kScale, .shared_bytes = 200000}));
  EXPECT_TRUE(fails_with(kernels.register_cuda_source(scale_info(), {.code = ""}), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(kernels.register_cuda_source(scale_info(), {.code = kScale, .options = {"--no-such-option"}}), ErrorCode::compile, {"no-such-option"}));
}

TEST_F(UserKernels, OfOtherDevicesAreRefused) {
  const Device cpu = must(Device::open("cpu")), second = must(Device::open("cuda:1"));
  EXPECT_TRUE(fails_with(cpu.kernels().register_cuda_source(scale_info(), {.code = kScale}), ErrorCode::unsupported, {"cpu"}));
  const Tensor x = must(second.allocate(DType::f32, {4})), y = must(second.allocate(DType::f32, {4}));
  CommandEncoder encoder = must(second.encoder());
  EXPECT_TRUE(fails_with(dispatch(encoder, x, y, 1.0f, 4), ErrorCode::wrong_device, {"cuda:0", "cuda:1"}));
  KernelInfo info;
  info.name = "callable";
  info.backend = "cuda";
  const auto callable = must(second.kernels().register_callable(info, [](const CallableArgs&) { return Result<void>(); }));
  EXPECT_TRUE(fails_with(encoder.dispatch({callable, {}, {}, 1, {}}), ErrorCode::unsupported, {"callable"}));
}

}  // namespace
}  // namespace mlxn
