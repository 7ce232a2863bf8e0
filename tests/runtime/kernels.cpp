#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>

#include "gtest/gtest.h"
#include "mlxn/encoder.h"
#include "mlxn/kernel.h"
#include "tests/runtime/callables.h"

namespace mlxn::kernels_suite {
namespace {

using test::callable;
using test::cpu;
using test::dispatch;
using test::fails_with;
using test::must;

KernelInfo named(std::string name) {
  KernelInfo info;
  info.name = std::move(name);
  return info;
}
const Callable kNothing = [](const CallableArgs&) -> Result<void> { return {}; };

std::shared_ptr<const Kernel> failing(const Device& device, std::string text) {
  return callable(device, {Access::in_out}, [text = std::move(text)](const CallableArgs&) -> Result<void> {
    return Error(ErrorCode::out_of_range, text);
  });
}

TEST(KernelRegistry, FindsWhatWasRegisteredAndNamesWhatWasNot) {
  const Device device = cpu();
  EXPECT_TRUE(fails_with(device.kernels().find("sum_of_two"), ErrorCode::not_found, {"sum_of_two"}));
  const auto kernel = must(device.kernels().register_callable(named("sum_of_two"), kNothing));
  EXPECT_EQ(must(device.kernels().find("sum_of_two")), kernel);
  EXPECT_EQ(must(device.kernels().find("sum_of_two")), kernel);
  const auto names = must(device.kernels().names());
  EXPECT_EQ(std::count(names.begin(), names.end(), "sum_of_two"), 1);
  EXPECT_GT(names.size(), 1u);  // the built-in ones
}

TEST(KernelRegistry, BuiltInOnesAreListedButNeitherFoundNorReplaced) {
  const Device device = cpu();
  for (const std::string& name : must(device.kernels().names())) {
    EXPECT_TRUE(fails_with(device.kernels().find(name), ErrorCode::not_found, {name, "built in"}));
    EXPECT_TRUE(fails_with(device.kernels().register_callable(named(name), kNothing), ErrorCode::invalid_argument, {name, "built-in"}));
  }
  EXPECT_TRUE(fails_with(device.kernels().find("softmax"), ErrorCode::not_found, {"softmax", "not registered"}));
  must(device.kernels().register_callable(named("softmax"), kNothing));  // an operation's name is no implementation's
}

TEST(KernelRegistry, RegisteringAnewKeepsOldHandles) {
  const Device device = cpu();
  int calls = 0;
  const auto old = must(device.kernels().register_callable(named("k"), [&](const CallableArgs&) -> Result<void> {
    ++calls;
    return {};
  }));
  const auto fresh = must(device.kernels().register_callable(named("k"), kNothing));
  EXPECT_GT(fresh->generation(), old->generation());
  EXPECT_EQ(must(device.kernels().find("k")), fresh);
  CommandEncoder encoder = must(device.encoder());
  must(dispatch(encoder, old, {}));
  must(encoder.commit_and_wait());
  EXPECT_EQ(calls, 1);
}

TEST(KernelRegistry, RefusesBadKernels) {
  const Device device = cpu();
  EXPECT_TRUE(fails_with(device.kernels().register_callable(named(""), kNothing), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(device.kernels().register_callable(named("k"), nullptr), ErrorCode::invalid_argument, {"k"}));
  EXPECT_TRUE(fails_with(device.kernels().register_callable(named(must(device.kernels().names()).front()), kNothing),
                         ErrorCode::invalid_argument, {"built-in"}));
  KernelInfo large = named("large");
  large.constants_bytes = 4097;
  EXPECT_TRUE(fails_with(device.kernels().register_callable(large, kNothing), ErrorCode::invalid_argument, {"4097"}));
  KernelInfo wide = named("wide");
  wide.bindings.resize(13);
  EXPECT_TRUE(fails_with(device.kernels().register_callable(wide, kNothing), ErrorCode::invalid_argument, {"13"}));
  for (const int access : {0, 4, 9}) {
    KernelInfo odd = named("odd");
    odd.bindings = {{Access::in, 0, 1}, {static_cast<Access>(access), 0, 1}};
    EXPECT_TRUE(fails_with(device.kernels().register_callable(odd, kNothing), ErrorCode::invalid_argument,
                           {"register_callable", "'odd'", "binding 1 is " + std::to_string(access), "1 to 3"}));
  }
}

TEST(KernelRegistry, IsThreadSafe) {
  const Device device = cpu();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        must(device.kernels().register_callable(named(std::string(1, static_cast<char>('a' + i % 5))), kNothing));
        must(device.kernels().find(std::string(1, static_cast<char>('a' + i % 5))));
        must(device.kernels().names());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Callables, SplitTheGridAndSeeTheirArguments) {
  const Device device = cpu(3);
  KernelInfo info = named("axpy");
  info.bindings = {{Access::in, 400, 4}, {Access::in_out, 400, 4}};
  info.constants_bytes = 4;
  const auto kernel = must(device.kernels().register_callable(info, [](const CallableArgs& args) -> Result<void> {
    float factor = 0;
    std::memcpy(&factor, args.constants.data(), 4);
    const auto* x = reinterpret_cast<const float*>(args.bindings[0].data());
    auto* y = reinterpret_cast<float*>(args.bindings[1].data());
    for (std::uint64_t i = args.begin; i < args.end; ++i) y[i] += factor * x[i];
    return {};
  }));
  EXPECT_EQ(kernel->info().bindings[1].access, Access::in_out);
  const Tensor x = must(device.allocate(DType::f32, {100})), y = must(device.allocate(DType::f32, {100}));
  {
    const auto data = must(x.write<float>());
    for (std::size_t i = 0; i < 100; ++i) data[i] = static_cast<float>(i);
  }
  const float factor = 2;
  const CommandEncoder::Binding bindings[] = {{x, Access::in}, {y, Access::in_out}};
  CommandEncoder encoder = must(device.encoder());
  for (int i = 0; i < 2; ++i) must(encoder.dispatch({kernel, bindings, std::as_bytes(std::span(&factor, 1)), 100, {}}));
  must(encoder.commit_and_wait());
  EXPECT_EQ(must(y.read<float>())[99], 396.0f);
}

TEST(Callables, DispatchesAreCheckedAgainstTheMetadata) {
  const Device device = cpu(), other = cpu();
  KernelInfo info = named("k");
  info.bindings = {{Access::out, 64, 16}};
  info.constants_bytes = 4;
  const auto kernel = must(device.kernels().register_callable(info, kNothing));
  const Tensor t = must(device.allocate(DType::u8, {128}));
  const std::byte constants[4] = {};
  CommandEncoder encoder = must(device.encoder());
  const auto run = [&](std::vector<CommandEncoder::Binding> bindings, std::size_t constant_bytes, std::uint64_t grid) {
    return encoder.dispatch({kernel, bindings, std::span(constants).first(constant_bytes), grid, {}});
  };
  EXPECT_TRUE(run({{t, Access::out}}, 4, 1));
  EXPECT_TRUE(fails_with(run({}, 4, 1), ErrorCode::invalid_argument, {"k", "0 bindings", "1"}));
  EXPECT_TRUE(fails_with(run({{t, Access::in}}, 4, 1), ErrorCode::invalid_argument, {"direction in,", "wanted out"}));
  EXPECT_TRUE(fails_with(run({{t, static_cast<Access>(9)}}, 4, 1), ErrorCode::invalid_argument, {"direction 9", "wanted out"}));
  EXPECT_TRUE(fails_with(run({{t, Access::out}}, 3, 1), ErrorCode::invalid_argument, {"3 bytes", "4"}));
  EXPECT_TRUE(fails_with(run({{t, Access::out}}, 4, 0), ErrorCode::invalid_argument, {"work items"}));
  EXPECT_TRUE(fails_with(run({{Tensor(), Access::out}}, 4, 1), ErrorCode::invalid_argument, {"empty"}));
  EXPECT_TRUE(fails_with(run({{must(t.slice(0, 0, 63)), Access::out}}, 4, 1), ErrorCode::bad_shape, {"63", "64"}));
  EXPECT_TRUE(fails_with(run({{must(t.slice(0, 8, 80)), Access::out}}, 4, 1), ErrorCode::bad_shape, {"aligned"}));
  EXPECT_TRUE(fails_with(run({{must(other.allocate(DType::u8, {64})), Access::out}}, 4, 1), ErrorCode::wrong_device, {}));
  EXPECT_TRUE(fails_with(encoder.dispatch({}), ErrorCode::invalid_argument, {"no kernel"}));
  KernelInfo foreign = named("foreign");
  foreign.backend = "cuda";
  const auto cuda = must(device.kernels().register_callable(foreign, kNothing));
  EXPECT_TRUE(fails_with(dispatch(encoder, cuda, {}), ErrorCode::wrong_device, {"cuda", "cpu"}));
  must(encoder.commit_and_wait());  // what failed recorded nothing
  EXPECT_EQ(device.counters().dispatches_executed, 1u);
}

TEST(Faults, NameTheSubmissionAndTheFirstDispatchThatFailed) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  EncoderOptions options;
  options.label = "token 7";
  CommandEncoder encoder = must(device.encoder(options));
  must(encoder.fill(t, std::byte{1}));
  must(dispatch(encoder, failing(device, "the first fault"), {t}, 1, "gate"));
  must(dispatch(encoder, failing(device, "the second fault"), {t}, 1, "tail"));
  const Submission submission = must(encoder.commit());
  EXPECT_TRUE(fails_with(submission.wait(), ErrorCode::out_of_range, {"token 7", "gate", "dispatch 1", "the first fault"}));
  EXPECT_EQ(submission.status(), Submission::Status::failed);
  EXPECT_TRUE(fails_with(submission.wait(), ErrorCode::out_of_range, {}));  // for everyone who asks
}

TEST(Faults, StopWhatWaitsForThem) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.fill(t, std::byte{1}));
  must(dispatch(encoder, failing(device, "x"), {t}));
  must(encoder.fill(t, std::byte{2}));
  for (int i = 0; i < 10; ++i) must(dispatch(encoder, callable(device, {Access::out}, kNothing), {t}));
  must(encoder.fill(t, std::byte{3}));
  const Submission submission = must(encoder.commit());
  EXPECT_FALSE(submission.wait());
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 1);
  EXPECT_EQ(submission.counters().dispatches_executed, 2u);
  must(device.fill(t, std::byte{4}));  // the device goes on
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 4);
}

TEST(Faults, TheFirstIsReportedAlthoughALaterOneFailsEarlier) {
  const Device device = cpu(2);
  std::atomic<bool> later_failed{false};
  const auto slow = callable(device, {}, [&](const CallableArgs&) -> Result<void> {
    test::eventually([&] { return later_failed.load(); });
    return Error(ErrorCode::device, "slow");
  });
  const auto fast = callable(device, {}, [&](const CallableArgs& args) -> Result<void> {
    if (args.begin == 0) return {};
    later_failed = true;  // on the other thread
    return Error(ErrorCode::device, "fast");
  });
  CommandEncoder encoder = must(device.encoder());
  must(dispatch(encoder, slow, {}));
  must(dispatch(encoder, fast, {}, 2));
  EXPECT_TRUE(fails_with(encoder.commit_and_wait(), ErrorCode::device, {"slow", "dispatch 0"}));
}

TEST(Faults, OneThreadIsEnoughToFail) {
  const Device device = cpu(3);
  const auto kernel = callable(device, {}, [](const CallableArgs& args) -> Result<void> {
    if (args.begin <= 250 && 250 < args.end) return Error(ErrorCode::device, "item 250");
    return {};
  });
  for (int i = 0; i < 50; ++i) {
    CommandEncoder encoder = must(device.encoder());
    must(dispatch(encoder, kernel, {}, 300));
    must(encoder.barrier());
    must(dispatch(encoder, callable(device, {}, kNothing), {}, 300));
    EXPECT_TRUE(fails_with(encoder.commit_and_wait(), ErrorCode::device, {"item 250"}));
  }
}

TEST(Faults, ExceptionsBecomeErrors) {
  const Device device = cpu();
  const auto run = [&](Callable function) {
    return test::run(device, [&](CommandEncoder& encoder) { return dispatch(encoder, callable(device, {}, std::move(function)), {}); });
  };
  EXPECT_TRUE(fails_with(run([](const CallableArgs&) -> Result<void> { throw std::runtime_error("lost"); }), ErrorCode::device, {"lost"}));
  EXPECT_TRUE(fails_with(run([](const CallableArgs&) -> Result<void> { throw std::bad_alloc(); }), ErrorCode::out_of_memory, {}));
  EXPECT_TRUE(fails_with(run([](const CallableArgs&) -> Result<void> { throw 3; }), ErrorCode::device, {}));
}

TEST(Faults, OfTheFirstOfTwoSubmissionsIsKept) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  CommandEncoder first = must(device.encoder()), second = must(device.encoder());
  must(dispatch(first, failing(device, "of the first"), {t}));
  must(second.fill(t, std::byte{1}));
  const Submission a = must(first.commit()), b = must(second.commit());
  must(b.wait());
  EXPECT_TRUE(fails_with(a.wait(), ErrorCode::out_of_range, {"of the first"}));
  must(device.fill(t, std::byte{2}));  // reported already
}

TEST(Faults, ThatNobodyReadAreReportedByTheNextCommitOnce) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  {
    CommandEncoder encoder = must(device.encoder());
    must(dispatch(encoder, failing(device, "unread"), {t}));
    const Submission forgotten = must(encoder.commit());
    EXPECT_TRUE(test::eventually([&] { return forgotten.poll(); }));
  }
  CommandEncoder encoder = must(device.encoder());
  must(encoder.fill(t, std::byte{9}));
  // The lane may hold its handle a moment longer than this thread does.
  EXPECT_TRUE(test::eventually([&] {
    CommandEncoder probe = must(device.encoder());
    return fails_with(probe.commit(), ErrorCode::out_of_range, {"unread"});
  }));
  must(encoder.commit_and_wait());
  EXPECT_EQ(must(t.read<std::uint8_t>())[0], 9);
  {
    CommandEncoder again = must(device.encoder());
    must(dispatch(again, failing(device, "unread too"), {t}));
    EXPECT_TRUE(again.commit());
  }
  EXPECT_TRUE(test::eventually([&] { return fails_with(device.default_queue().wait_idle(), ErrorCode::out_of_range, {"unread too"}); }));
  must(device.default_queue().wait_idle());
}

TEST(Faults, KernelsThatWaitForWorkAreToldSo) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {8}));
  std::vector<Result<void>> results;
  const auto kernel = callable(device, {Access::out}, [&](const CallableArgs&) -> Result<void> {
    results.push_back(device.fill(t, std::byte{1}));
    const auto mapping = t.read<std::uint8_t>();
    results.push_back(mapping ? Result<void>() : Result<void>(mapping.error()));
    results.push_back(device.default_queue().wait_idle());
    return {};
  });
  CommandEncoder encoder = must(device.encoder());
  must(dispatch(encoder, kernel, {t}));
  must(encoder.commit_and_wait());
  ASSERT_EQ(results.size(), 3u);
  for (const Result<void>& result : results) EXPECT_TRUE(fails_with(result, ErrorCode::wrong_state, {"kernel"}));
}

}  // namespace
}  // namespace mlxn::kernels_suite
