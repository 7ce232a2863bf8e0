#include "mlxn/graph.h"

#include <cstdint>
#include <stdexcept>

#include "backends/cpu/launch.h"
#include "gtest/gtest.h"
#include "tests/runtime/callables.h"

namespace mlxn::graph_suite {
namespace {

using test::callable;
using test::cpu;
using test::dispatch;
using test::fails_with;
using test::must;

struct AddArgs {
  InOut<std::int64_t> y;
  std::int64_t wide;
  std::int32_t narrow;
};
void add(const AddArgs& args, const CpuContext& context) {
  if (context.thread == 0) *args.y.ptr += args.wide * 1000 + args.narrow;
}
constexpr auto kAdd = cpu::kernel<&add>("add_numbers");

Result<void> encode_add(CommandEncoder& encoder, const Tensor& y, const Scalar<std::int64_t>& wide, const Scalar<std::int64_t>& narrow) {
  Launch<AddArgs> launch;
  launch.bind(launch.args.y, y);
  launch.set(launch.args.wide, wide);
  launch.set(launch.args.narrow, narrow, -5, 99999);
  return cpu::encode(encoder, kAdd, launch);
}

std::int64_t number(const Tensor& t) { return must(t.read<std::int64_t>())[0]; }
Tensor numbers(const Device& device, std::int64_t count = 1) { return must(device.allocate(DType::i64, {count})); }

TEST(Graph, RecordsWithoutRunningAndReplaysManyTimes) {
  const Device device = cpu();
  const Tensor y = numbers(device);
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_CHECK(encode_add(encoder, y, 0, 1));
    return encode_add(encoder, y, 0, 2);
  }));
  EXPECT_EQ(graph.dispatches(), 2u);
  EXPECT_EQ(graph.barriers(), 1u);
  EXPECT_EQ(number(y), 0);
  EXPECT_EQ(device.counters().dispatches_encoded, 2u);
  for (int i = 0; i < 10; ++i) must(graph.replay_and_wait());
  Submission last;
  for (int i = 0; i < 100; ++i) last = must(graph.replay());
  must(last.wait());
  EXPECT_EQ(number(y), 330);
  EXPECT_EQ(device.counters().dispatches_encoded, 2u);  // replays do not count
  EXPECT_EQ(device.counters().dispatches_executed, 220u);
  EXPECT_EQ(last.counters().dispatches_encoded, 0u);
  EXPECT_EQ(last.counters().dispatches_executed, 2u);
}

TEST(Graph, ParametersReachEveryDispatchThatUsesThem) {
  const Device device = cpu();
  const Tensor y = numbers(device);
  int id = -1;
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_TRY(const auto p, encoder.parameter("p", 3));
    MLXN_TRY(const auto q, encoder.parameter("q", 0));
    id = q.parameter;
    MLXN_CHECK(encode_add(encoder, y, p, 0));
    return encode_add(encoder, y, q, p);
  }));
  must(graph.replay_and_wait());
  EXPECT_EQ(number(y), 3003);
  must(graph.set("p", 7));
  must(graph.set(id, 10));
  must(graph.replay_and_wait());
  EXPECT_EQ(number(y), 3003 + 7000 + 10007);
  EXPECT_TRUE(fails_with(graph.set("r", 1), ErrorCode::not_found, {"r"}));
  EXPECT_TRUE(fails_with(graph.set(2, 1), ErrorCode::not_found, {"2"}));
  EXPECT_TRUE(fails_with(graph.set(-1, 1), ErrorCode::not_found, {}));
}

TEST(Graph, RefusesValuesThatAKernelDoesNotTake) {
  const Device device = cpu();
  const Tensor y = numbers(device);
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_TRY(const auto p, encoder.parameter("p", 1));
    return encode_add(encoder, y, p, p);
  }));
  EXPECT_TRUE(fails_with(graph.set("p", -6), ErrorCode::out_of_range, {"p", "-6", "add_numbers", "99999"}));
  EXPECT_TRUE(fails_with(graph.set("p", 100000), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(graph.set("p", (std::int64_t{1} << 32) + 1), ErrorCode::out_of_range, {}));
  must(graph.replay_and_wait());
  EXPECT_EQ(number(y), 1001);  // neither field changed
  must(graph.set("p", -5));
  must(graph.replay_and_wait());
  EXPECT_EQ(number(y), 1001 - 5005);
}

TEST(Graph, ParametersBelongToTheirGraph) {
  const Device device = cpu();
  const Tensor y = numbers(device);
  CommandEncoder plain = must(device.encoder());
  EXPECT_TRUE(fails_with(plain.parameter("p", 0), ErrorCode::wrong_state, {"p"}));
  EXPECT_TRUE(fails_with(encode_add(plain, y, Scalar<std::int64_t>(1, 0), 0), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(Graph::record(device,
                                       [&](CommandEncoder& encoder) -> Result<void> {
                                         MLXN_CHECK(encoder.parameter("p", 0));
                                         return encoder.parameter("p", 0).transform([](auto) { return 0; }).and_then([](int) {
                                           return Result<void>();
                                         });
                                       }),
                         ErrorCode::invalid_argument, {"twice"}));
}

TEST(Graph, RecordingEndsCleanly) {
  const Device device = cpu();
  EXPECT_TRUE(fails_with(Graph::record(device, nullptr), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(Graph::record(device, [](CommandEncoder&) -> Result<void> { return Error(ErrorCode::cancelled); }),
                         ErrorCode::cancelled, {}));
  EXPECT_TRUE(fails_with(Graph::record(device, [](CommandEncoder&) -> Result<void> { throw std::bad_alloc(); }),
                         ErrorCode::out_of_memory, {}));
  EXPECT_TRUE(fails_with(Graph::record(device, [](CommandEncoder&) -> Result<void> { throw std::runtime_error("no tape"); }),
                         ErrorCode::invalid_argument, {"recording function threw", "no tape"}));
  EXPECT_TRUE(fails_with(Graph::record(device, [](CommandEncoder&) -> Result<void> { throw 3; }), ErrorCode::invalid_argument, {"threw"}));
  EXPECT_TRUE(fails_with(Graph::record(device, [](CommandEncoder& encoder) { return encoder.commit_and_wait(); }),
                         ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(Graph::record(device,
                                       [](CommandEncoder& encoder) -> Result<void> {
                                         const CommandEncoder taken = std::move(encoder);
                                         return {};
                                       }),
                         ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(Graph::record(device,
                                       [&](CommandEncoder& encoder) -> Result<void> {
                                         encoder = must(device.encoder());
                                         return {};
                                       }),
                         ErrorCode::wrong_state, {}));
  Graph none;
  EXPECT_TRUE(fails_with(none.replay(), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(none.set("p", 0), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(fails_with(none.rebind({}, {}), ErrorCode::wrong_state, {}));
  EXPECT_EQ(none.dispatches(), 0u);
  Graph empty = must(Graph::record(device, [](CommandEncoder&) -> Result<void> { return {}; }));
  must(empty.replay_and_wait());
}

TEST(Graph, RebindsBuffersOfOperationsAndCallables) {
  const Device device = cpu();
  const auto twice = callable(device, {Access::in, Access::out}, [](const CallableArgs& args) -> Result<void> {
    const auto* x = reinterpret_cast<const std::int64_t*>(args.bindings[0].data());
    *reinterpret_cast<std::int64_t*>(args.bindings[1].data()) = 2 * *x;
    return {};
  });
  const Tensor a = numbers(device, 4), b = numbers(device, 4), out = numbers(device), out2 = numbers(device);
  const Tensor a1 = must(a.slice(0, 1, 2));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_CHECK(encode_add(encoder, a1, 0, 5));
    return dispatch(encoder, twice, {a1, out});
  }));
  must(graph.replay_and_wait());
  EXPECT_EQ(number(out), 10);
  must(graph.rebind(a, b));
  must(graph.rebind(out, out2));
  must(graph.replay_and_wait());
  must(graph.replay_and_wait());
  EXPECT_EQ(must(b.read<std::int64_t>())[1], 10);
  EXPECT_EQ(number(out2), 20);
  EXPECT_EQ(number(out), 10);
  EXPECT_EQ(must(a.read<std::int64_t>())[1], 5);
  EXPECT_TRUE(fails_with(graph.rebind(a, b), ErrorCode::not_found, {}));
}

TEST(Graph, RefusesToRebindWhatWouldChangeItsMeaning) {
  const Device device = cpu(), other = cpu();
  const Tensor a = numbers(device, 16), b = numbers(device, 16), c = numbers(device, 32);
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_CHECK(encoder.copy(b, a));
    return encoder.copy(must(c.slice(0, 0, 16)), b);
  }));
  EXPECT_TRUE(fails_with(graph.rebind(a, b), ErrorCode::aliased, {}));
  EXPECT_TRUE(fails_with(graph.rebind(a, must(c.slice(0, 8, 24))), ErrorCode::aliased, {}));
  EXPECT_TRUE(fails_with(graph.rebind(must(a.slice(0, 0, 8)), numbers(device, 8)), ErrorCode::aliased, {"more"}));
  EXPECT_TRUE(fails_with(graph.rebind(a, numbers(device, 17)), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(graph.rebind(a, must(device.allocate(DType::f64, {16}))), ErrorCode::bad_shape,
                         {"is f64 [16] with strides [1]", "wanted i64 [16]"}));
  EXPECT_TRUE(fails_with(graph.rebind(a, must(numbers(device, 17).slice(0, 1, 17))), ErrorCode::bad_shape, {"aligned"}));
  EXPECT_TRUE(fails_with(graph.rebind(a, numbers(other, 16)), ErrorCode::wrong_device, {}));
  EXPECT_TRUE(fails_with(graph.rebind(numbers(device, 16), numbers(device, 16)), ErrorCode::not_found, {}));
  EXPECT_TRUE(fails_with(graph.rebind({}, a), ErrorCode::invalid_argument, {"`from` is an empty tensor"}));
  EXPECT_TRUE(fails_with(graph.rebind(a, {}), ErrorCode::invalid_argument, {"`to` is an empty tensor"}));
  must(graph.rebind(a, must(c.slice(0, 16, 32))));  // touches, but does not overlap
  must(graph.replay_and_wait());
}

TEST(Graph, KeepsAliveWhatItBindsNowAndNothingElse) {
  const Device device = cpu();
  Tensor a = numbers(device, 4);
  const Tensor b = numbers(device, 4);
  std::weak_ptr<Allocation> watch = a.allocation();
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) { return encoder.copy(b, a); }));
  for (int i = 0; i < 40; ++i) {
    const Tensor next = numbers(device, 4);
    must(graph.rebind(a, next));
    a = next;
    EXPECT_TRUE(watch.expired()) << i;
    watch = a.allocation();
  }
  a = {};
  EXPECT_FALSE(watch.expired());
  must(graph.replay_and_wait());
  graph = {};
  EXPECT_TRUE(watch.expired());
}

TEST(Graph, DoesNotChangeUnderAReplay) {
  const Device device = cpu();
  std::atomic<bool> open{false};
  const auto gate = callable(device, {Access::out}, [&](const CallableArgs&) -> Result<void> {
    test::eventually([&] { return open.load(); });
    return {};
  });
  const Tensor y = numbers(device);
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_CHECK(encoder.parameter("p", 0));
    return dispatch(encoder, gate, {y});
  }));
  const Submission running = must(graph.replay());
  EXPECT_TRUE(fails_with(graph.set("p", 1), ErrorCode::wrong_state, {"unfinished"}));
  EXPECT_TRUE(fails_with(graph.rebind(y, numbers(device)), ErrorCode::wrong_state, {}));
  open = true;
  must(running.wait());
  must(graph.set("p", 1));
  must(graph.rebind(y, numbers(device)));
}

TEST(Graph, AFailedReplayIsReportedAndTheNextOneRuns) {
  const Device device = cpu();
  std::atomic<bool> fail{true};
  const auto kernel = callable(device, {}, [&](const CallableArgs&) -> Result<void> {
    if (fail) return Error(ErrorCode::device, "not now");
    return {};
  });
  Graph graph = must(Graph::record(device, [&](CommandEncoder& encoder) { return dispatch(encoder, kernel, {}); }));
  EXPECT_TRUE(fails_with(graph.replay_and_wait(), ErrorCode::device, {"not now"}));
  {
    const Submission unread = must(graph.replay());
    EXPECT_TRUE(test::eventually([&] { return unread.poll(); }));
  }
  fail = false;
  EXPECT_TRUE(test::eventually([&] { return fails_with(graph.replay(), ErrorCode::device, {"not now"}); }));
  must(graph.replay_and_wait());
}

TEST(Graph, OutlivesEverythingElse) {
  Graph graph;
  Tensor y;
  {
    const Device device = cpu();
    y = numbers(device);
    graph = must(Graph::record(device, [&](CommandEncoder& encoder) { return encode_add(encoder, y, 0, 4); }));
  }
  must(graph.replay_and_wait());
  EXPECT_EQ(number(y), 4);
  Submission submission = must(graph.replay());
  graph = {};
  must(submission.wait());
  EXPECT_EQ(number(y), 8);
}

}  // namespace
}  // namespace mlxn::graph_suite
