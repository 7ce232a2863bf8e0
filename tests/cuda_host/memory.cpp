// Devices and memory of the CUDA backend, on the stand-in of the runtime.
#include <algorithm>

#include "mlxn/native/cuda.h"
#include "mlxn/weight.h"
#include "ops/weight_records/args.h"
#include "tests/cuda_host/support.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;

TEST_F(Cuda, SaysWhyThereIsNoDevice) {
  fake::reset({.driver_version = 0});
  EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::not_found, {"the NVIDIA driver"}));
  const Device automatic = must(Device::open("auto"));
  EXPECT_EQ(automatic.capabilities().backend, "cpu");
  EXPECT_NE(automatic.capabilities().selection_reason.find("the NVIDIA driver"), std::string::npos);
  EXPECT_EQ(must(Device::enumerate()).size(), 1u);
  fake::reset({.driver_version = 12040});
  EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::not_found, {"12.4", "13.0"}));
  fake::reset({.devices = 0});
  EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::not_found, {"no GPU"}));
  fake::reset({.capability = 75});
  EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::unsupported, {"7.5", "8.0"}));
  EXPECT_EQ(must(Device::enumerate()).size(), 1u);
  fake::reset();
  EXPECT_TRUE(fails_with(Device::open("cuda:2"), ErrorCode::not_found, {"2", "0 to 1"}));
  DeviceOptions options;
  options.max_in_flight = 0;
  EXPECT_TRUE(fails_with(Device::open("cuda", options), ErrorCode::invalid_argument, {"max_in_flight"}));
}

TEST_F(Cuda, DevicesAreListedWithoutAContext) {
  fake::reset({.devices = 3, .capabilities = {75, 80}});
  const auto all = must(Device::enumerate());
  ASSERT_EQ(all.size(), 3u);  // the CPU, and two that are new enough
  EXPECT_EQ(all[1].id, "cuda:1");
  EXPECT_EQ(all[2].id, "cuda:2");
  EXPECT_EQ(all[1].total_bytes, 256u << 20);
  EXPECT_EQ(all[1].free_bytes, 0u);
  EXPECT_EQ(fake::contexts(), 0);
  EXPECT_EQ(must(Device::open(all[2].id)).capabilities().id, "cuda:2");
  EXPECT_EQ(fake::contexts(), 1);
}

TEST_F(Cuda, AutoTakesTheBestThatStartsAndSaysWhy) {
  const auto taken = [] {
    const Device device = must(Device::open("auto"));
    return device.capabilities().id + " " + device.capabilities().selection_reason;
  };
  fake::reset({.devices = 1});
  EXPECT_EQ(taken(), "cuda:0 a GPU is there");
  fake::reset({.devices = 3});
  EXPECT_EQ(taken(), "cuda:0 cuda:0, the best of 3 GPUs");
  fake::reset({.devices = 3, .capabilities = {80, 90, 90}, .multiprocessors = {200, 114, 132}});
  EXPECT_EQ(taken(), "cuda:2 cuda:2, the best of 3 GPUs");
  EXPECT_EQ(fake::contexts(), 1);
  fake::reset({.devices = 3, .capabilities = {80, 75, 90}, .unavailable = 2});
  const std::string text = taken();
  EXPECT_EQ(text.find("cuda:0 cuda:0, the best of 3 GPUs that works ("), 0u) << text;
  for (const char* why : {"device 1", "7.5", "device 2", "cudaErrorDevicesUnavailable"}) EXPECT_NE(text.find(why), std::string::npos) << text;
  fake::reset({.devices = 2, .capabilities = {70, 75}});
  const std::string none = taken();
  EXPECT_EQ(none.find("cpu "), 0u) << none;
  for (const char* why : {"device 0", "7.0", "device 1", "7.5", "8.0"}) EXPECT_NE(none.find(why), std::string::npos) << none;
}

TEST_F(Cuda, AFailedStartIsAnError) {
  for (const char* call : {"cudaSetDevice", "cudaFree", "cudaMemGetInfo", "cudaGetDeviceProperties", "cudaStreamCreateWithFlags",
                           "cudaEventCreateWithFlags"}) {
    fake::fail_next_call(call, cudaErrorMemoryAllocation);
    EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::out_of_memory, {})) << call;
    EXPECT_EQ(fake::live_objects(), 0) << call;
  }
  fake::fail_next_call("cudaFree", cudaErrorIllegalAddress);
  EXPECT_TRUE(fails_with(Device::open("cuda"), ErrorCode::device_lost, {"illegal memory access", "another process"}));
}

TEST_F(Cuda, TellsWhatItIs) {
  const Device device = must(Device::open("auto"));
  const Capabilities& c = device.capabilities();
  EXPECT_EQ(c.backend, "cuda");
  EXPECT_FALSE(c.selection_reason.empty());
  EXPECT_EQ(c.compute_units, 132);
  EXPECT_EQ(c.group_memory_bytes, 227u << 10);
  EXPECT_EQ(c.last_level_cache_bytes, 60u << 20);
  EXPECT_FALSE(c.unified_memory);
  EXPECT_TRUE(c.native_bf16 && c.matrix_units);
  EXPECT_EQ(c.total_bytes, 256u << 20);
  EXPECT_EQ(must(native::cuda_ordinal(must(Device::open("cuda:1")))), 1);
}

TEST_F(Cuda, ListsTheKernelsOfGpusOnly) {
  const auto names = must(cuda().kernels().names());
  EXPECT_EQ(std::count(names.begin(), names.end(), "rms_norm_gpu"), 1);
  for (const std::string& name : names) {
    if (name == "attention_mma_f16" || name == "cached_attention_f16") continue;  // CUDA's alone
    EXPECT_EQ(name.substr(name.size() - std::min<std::size_t>(4, name.size())), "_gpu") << name;
  }
  const auto on_cpu = must(must(Device::open("cpu")).kernels().names());
  EXPECT_EQ(std::count(on_cpu.begin(), on_cpu.end(), "rms_norm_gpu"), 0);
  EXPECT_GT(on_cpu.size(), 1u);
}

TEST_F(Cuda, PreparingTellsTheErrorOfEveryPiece) {
  const Device device = cuda();
  const Tensor source = must(must(Device::open("cpu")).allocate(DType::q8_0, {3000, 4096}));  // two pieces
  fake::define_kernel("pack_records", {sizeof(ops::WeightRecordsArgs)}, [](const fake::Launch&) {});
  fake::define_kernel("weight_exponents_q8_0", {sizeof(ops::WeightExponentsArgs)}, [](const fake::Launch&) {});
  PrepareOptions options;
  options.mode = PrepareMode::on;
  EXPECT_TRUE(Weight::prepare(device, source, options));
  fake::fail_next_call("cudaLaunchKernelExC", cudaErrorLaunchOutOfResources);
  EXPECT_TRUE(fails_with(Weight::prepare(device, source, options), ErrorCode::device, {"pack_records", "cudaErrorLaunchOutOfResources"}));
  must(device.default_queue().wait_idle());
}

TEST_F(Cuda, FreshMemoryIsZeroUnlessAskedOtherwise) {
  const Device device = cuda();
  for (const MemoryKind kind : {MemoryKind::automatic, MemoryKind::device, MemoryKind::pinned, MemoryKind::shared}) {
    for (const std::uint64_t alignment : {1, 256, 4096, 1 << 20}) {
      const Tensor zero = must(device.allocate(DType::u32, {100}, {.alignment_bytes = alignment, .kind = kind}));
      EXPECT_EQ(words(device, zero), std::vector<std::uint32_t>(100, 0));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(must(native::cuda_pointer(zero))) % alignment, 0u);
      const Tensor raw = must(device.allocate(DType::u32, {100}, {.zero = false, .alignment_bytes = alignment, .kind = kind}));
      EXPECT_EQ(words(device, raw)[99], 0xa5a5a5a5u);
    }
  }
  const std::uint64_t in_use = fake::bytes_in_use();
  EXPECT_EQ(device.counters().bytes_in_use, in_use);
}

TEST_F(Cuda, TheHostSeesPinnedMemoryOnly) {
  const Device device = cuda();
  const Tensor pinned = must(device.allocate(DType::u32, {8}, {.kind = MemoryKind::pinned}));
  must(pinned.write<std::uint32_t>())[3] = 7;
  EXPECT_EQ(must(pinned.read<std::uint32_t>())[3], 7u);
  const Tensor remote = must(device.allocate(DType::u32, {8}));
  EXPECT_TRUE(fails_with(remote.read<std::uint32_t>(), ErrorCode::unsupported, {"cuda"}));
  EXPECT_EQ(remote.unsafe_data(), nullptr);
  must(device.copy(remote, pinned));
  EXPECT_EQ(words(device, remote)[3], 7u);
  {
    fake::Hold hold;
    commit_fill(device, pinned, 9);
    std::thread release([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      hold.release();
    });
    EXPECT_EQ(must(pinned.read<std::uint32_t>())[0], 0x09090909u);  // waits for the fill
    release.join();
  }
}

TEST_F(Cuda, OutOfMemoryIsAnErrorAndNoMore) {
  const Device device = cuda();
  EXPECT_TRUE(fails_with(device.allocate(DType::u8, {300 << 20}), ErrorCode::out_of_memory, {"314572800", "268435456"}));
  EXPECT_TRUE(fails_with(device.allocate(DType::u8, {std::int64_t{1} << 60}), ErrorCode::out_of_memory, {}));
  EXPECT_EQ(fake::last_error(), cudaSuccess);
  const Tensor fits = must(device.allocate(DType::u8, {200 << 20}, {.zero = false}));
  EXPECT_TRUE(fails_with(device.allocate(DType::u8, {100 << 20}), ErrorCode::out_of_memory, {"58720256"}));
  must(device.fill(fits, std::byte{1}));
  EXPECT_EQ(device.free_bytes(), std::uint64_t{56} << 20);
}

TEST_F(Cuda, ALimitCountsLikeTheDevicesMemory) {
  DeviceOptions options;
  options.memory_limit_bytes = 1 << 20;
  const Device device = cuda(options);
  EXPECT_TRUE(fails_with(device.allocate(DType::u8, {(1 << 20) + 1}), ErrorCode::out_of_memory, {"1048577", "limit of 1048576"}));
  Tensor half = must(device.allocate(DType::u8, {1 << 19}));
  EXPECT_TRUE(fails_with(device.allocate(DType::u8, {(1 << 19) + 1}), ErrorCode::out_of_memory, {}));
  EXPECT_EQ(device.free_bytes(), std::uint64_t{1} << 19);
  half = {};
  must(device.allocate(DType::u8, {1 << 20}));
  EXPECT_EQ(device.counters().peak_bytes_in_use, std::uint64_t{1} << 20);
}

TEST_F(Cuda, MemoryOfFinishedWorkIsFoundBeforeItIsRefused) {
  const Device device = cuda();
  commit_fill(device, must(device.allocate(DType::u8, {200 << 20}, {.zero = false})), 1);
  EXPECT_TRUE(eventually([&] { return device.allocate(DType::u8, {200 << 20}, {.zero = false}).has_value(); }));
}

TEST_F(Cuda, UploadsComeBack) {
  const Device device = cuda();
  for (const std::int64_t bytes : {1, 4096, 262144, 262145, 5000001, 40 << 20}) {
    std::vector<std::byte> from(static_cast<std::size_t>(bytes)), back(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 2654435761u >> 13);
    const Tensor t = must(device.allocate(DType::u8, {bytes + 3}));
    const Tensor inner = must(t.slice(0, 2, bytes + 2));
    must(device.upload(inner, from));
    must(device.download(back, inner));
    EXPECT_EQ(from, back) << bytes;
    std::vector<std::byte> all(from.size() + 3);
    must(device.download(all, t));
    EXPECT_EQ(all[1], std::byte{0});
    EXPECT_EQ(all.back(), std::byte{0});
  }
}

TEST_F(Cuda, CopiesOfPinnedMemoryTakeNoDetour) {
  const Device device = cuda();
  const Tensor pinned = must(device.allocate(DType::u8, {1 << 20}, {.kind = MemoryKind::pinned}));
  const Tensor t = must(device.allocate(DType::u8, {1 << 20}));
  const auto bytes = must(pinned.write<std::byte>());
  const int before = fake::calls("cudaMemcpyAsync"), made = fake::calls("cudaHostAlloc");
  must(device.upload(t, std::span(bytes.data(), bytes.size())));
  must(device.download(std::span(bytes.data(), bytes.size()), t));
  EXPECT_EQ(fake::calls("cudaMemcpyAsync") - before, 2);
  EXPECT_EQ(fake::calls("cudaHostAlloc"), made);
}

TEST_F(Cuda, TransfersComeAfterTheWorkOfEveryQueue) {
  const Device device = cuda();
  EncoderOptions other;
  other.queue = must(device.create_queue());
  const Tensor a = must(device.allocate(DType::u32, {4})), b = must(device.allocate(DType::u32, {4}));
  for (int round = 1; round < 20; ++round) {
    fake::Hold hold;
    const Submission first = commit_fill(device, a, round), second = commit_fill(device, b, round, other);
    std::atomic<bool> done{false};
    std::thread reader([&] {
      EXPECT_EQ(words(device, a)[0], static_cast<std::uint32_t>(round) * 0x01010101u);
      EXPECT_EQ(words(device, b)[3], static_cast<std::uint32_t>(round) * 0x01010101u);
      done = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_FALSE(done);
    hold.release();
    reader.join();
  }
}

TEST_F(Cuda, AFailedTransferLeavesTheDeviceUsable) {
  const Device device = cuda();
  const Tensor t = must(device.allocate(DType::u8, {1 << 20}));
  std::vector<std::byte> bytes(1 << 20, std::byte{4});
  for (const char* call : {"cudaHostAlloc", "cudaMemcpyAsync", "cudaEventRecord", "cudaStreamWaitEvent"}) {
    fake::fail_next_call(call, cudaErrorInvalidValue);
    EXPECT_TRUE(fails_with(device.upload(t, bytes), ErrorCode::device, {})) << call;
    must(device.upload(t, bytes));
  }
  std::vector<std::byte> back(1 << 20);
  fake::fail_next_call("cudaMemcpyAsync", cudaErrorInvalidValue);
  EXPECT_TRUE(fails_with(device.download(back, t), ErrorCode::device, {"download"}));
  must(device.download(back, t));
  EXPECT_EQ(back, bytes);
}

TEST_F(Cuda, ImportsWhatTheGpuSees) {
  const Device device = cuda(), second = must(Device::open("cuda:1"));
  std::vector<std::uint32_t> host(64);
  int deleted = 0;
  const auto deleter = [&] { ++deleted; };
  EXPECT_TRUE(fails_with(device.import_memory(host.data(), 256, deleter, DType::u32, {64}), ErrorCode::invalid_argument, {"pinned"}));
  EXPECT_EQ(deleted, 1);
  const Tensor source = must(device.allocate(DType::u32, {64}));
  void* const address = must(native::cuda_pointer(source));
  EXPECT_TRUE(fails_with(second.import_memory(address, 256, deleter, DType::u32, {64}), ErrorCode::wrong_device, {"cuda:0", "cuda:1"}));
  EXPECT_EQ(deleted, 2);
  {
    const Tensor imported = must(device.import_memory(address, 256, deleter, DType::u32, {64}));
    must(device.fill(imported, std::byte{3}));
    EXPECT_EQ(words(device, source)[63], 0x03030303u);
    EXPECT_TRUE(fails_with(imported.read<std::uint32_t>(), ErrorCode::unsupported, {}));
    EXPECT_EQ(deleted, 2);
  }
  EXPECT_EQ(deleted, 3);
  EXPECT_TRUE(fails_with(device.import_memory(address, 5000, nullptr, DType::u8, {5000}), ErrorCode::invalid_argument, {"5000"}));
  const Tensor pinned = must(device.allocate(DType::u32, {64}, {.kind = MemoryKind::pinned}));
  EXPECT_NE(must(device.import_memory(pinned.unsafe_data(), 256, nullptr, DType::u32, {64})).unsafe_data(), nullptr);
}

TEST_F(Cuda, NativeCallsRefuseOtherDevices) {
  const Device cpu = must(Device::open("cpu"));
  EXPECT_TRUE(fails_with(native::cuda_ordinal(cpu), ErrorCode::wrong_device, {"cpu"}));
  EXPECT_TRUE(fails_with(native::cuda_stream(cpu.default_queue()), ErrorCode::wrong_device, {"cpu"}));
  EXPECT_TRUE(fails_with(native::cuda_queue(cpu, nullptr), ErrorCode::wrong_device, {"cpu"}));
  EXPECT_TRUE(fails_with(native::cuda_pointer(must(cpu.allocate(DType::u8, {1}))), ErrorCode::wrong_device, {"cpu"}));
  EXPECT_TRUE(fails_with(native::cuda_ordinal({}), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(native::cuda_stream({}), ErrorCode::invalid_argument, {}));
  EXPECT_TRUE(fails_with(native::cuda_pointer({}), ErrorCode::invalid_argument, {}));
}

TEST_F(Cuda, AQueueOnTheCallersStream) {
  const Device device = cuda(), second = must(Device::open("cuda:1"));
  cudaSetDevice(0);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  EXPECT_TRUE(fails_with(native::cuda_queue(second, stream), ErrorCode::wrong_device, {"cuda:0", "cuda:1"}));
  const Tensor t = must(device.allocate(DType::u32, {16}));
  {
    EncoderOptions options;
    options.queue = must(native::cuda_queue(device, stream));
    EXPECT_EQ(must(native::cuda_stream(options.queue)), stream);
    // The caller's work, the library's, and the caller's again, in this order.
    fake::Hold hold;
    cudaMemsetAsync(must(native::cuda_pointer(t)), 1, 64, stream);
    const Submission submission = commit_fill(device, must(t.slice(0, 0, 8)), 2, options);
    cudaMemsetAsync(must(native::cuda_pointer(t)), 3, 16, stream);
    hold.release();
    must(submission.wait());
    const auto values = words(device, t);
    EXPECT_EQ(values[0], 0x03030303u);
    EXPECT_EQ(values[4], 0x02020202u);
    EXPECT_EQ(values[8], 0x01010101u);
    must(options.queue.wait_idle());
    EncoderOptions legacy;
    legacy.queue = must(native::cuda_queue(device, nullptr));
    must(commit_fill(device, t, 5, legacy).wait());
    EXPECT_EQ(words(device, t)[15], 0x05050505u);
  }
  cudaSetDevice(0);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace mlxn
