// The CUDA backend on a GPU. Without one each test is skipped.
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "backends/cuda/command_list.h"
#include "backends/cuda/kernel_table.h"
#include "mlxn/graph.h"
#include "mlxn/kernel.h"
#include "mlxn/native/cuda.h"
#include "mlxn/ops/set_element.h"
#include "tests/support/devices.h"
#include "tests/support/gpu_handles.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;

class CudaGpu : public testing::Test {
 protected:
  void SetUp() override {
    auto device = Device::open("cuda");
    if (!device) GTEST_SKIP() << device.error().message();
    device_ = *device;
  }
  std::vector<std::uint32_t> words(const Tensor& t) {
    std::vector<std::uint32_t> values(static_cast<std::size_t>(t.elems()));
    must(device_.download(std::as_writable_bytes(std::span(values)), t));
    return values;
  }
  Device device_;
};

TEST_F(CudaGpu, TellsWhatItIs) {
  const Capabilities& c = device_.capabilities();
  EXPECT_FALSE(c.name.empty());
  EXPECT_GT(c.free_bytes, 0u);
  EXPECT_GE(c.total_bytes, c.free_bytes);
  EXPECT_GE(c.compute_units, 1);
  EXPECT_GE(c.group_memory_bytes, 48u << 10);
  EXPECT_EQ(c.simd_width, 32u);
  EXPECT_GE(c.threads, 1024);
  EXPECT_GT(c.last_level_cache_bytes, 0u);
}

TEST_F(CudaGpu, EveryKernelLoadsWithTheHostsLayout) {
  for (const gpu::KernelInfo* handle : test::gpu_handles()) {
    const void* const function = cuda::kernel_function(*handle);
    cudaFuncAttributes attributes{};
    ASSERT_EQ(cudaFuncGetAttributes(&attributes, function), cudaSuccess) << handle->name;
    EXPECT_GE(static_cast<std::uint32_t>(attributes.maxThreadsPerBlock), handle->threads) << handle->name;
    EXPECT_LE(attributes.sharedSizeBytes, std::size_t{48} << 10) << handle->name;
    std::size_t offset = 0, size = 0;
    ASSERT_EQ(cudaFuncGetParamInfo(function, 0, &offset, &size), cudaSuccess) << handle->name;
    EXPECT_EQ(size, handle->args_bytes) << handle->name;
  }
}

TEST_F(CudaGpu, FreshMemoryIsZeroAndAligned) {
  for (const MemoryKind kind : {MemoryKind::automatic, MemoryKind::device, MemoryKind::pinned, MemoryKind::shared}) {
    for (const std::uint64_t alignment : {1, 256, 4096, 1 << 20}) {
      // Twice: the second block may be the first one's memory.
      for (int round = 0; round < 2; ++round) {
        const Tensor t = must(device_.allocate(DType::u32, {1000}, {.alignment_bytes = alignment, .kind = kind}));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(must(native::cuda_pointer(t))) % alignment, 0u);
        EXPECT_EQ(words(t), std::vector<std::uint32_t>(1000, 0));
        must(device_.fill(t, std::byte{0x5a}));
        EXPECT_EQ(words(t)[999], 0x5a5a5a5au);
      }
    }
  }
}

TEST_F(CudaGpu, OutOfMemoryIsSurvived) {
  const std::uint64_t total = device_.capabilities().total_bytes;
  const auto too_much = device_.allocate(DType::u8, {static_cast<std::int64_t>(total) + 1});
  EXPECT_TRUE(fails_with(too_much, ErrorCode::out_of_memory, {std::to_string(total + 1), "free"}));
  EXPECT_TRUE(too_much.error().is_transient());
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  const Tensor t = must(device_.allocate(DType::u8, {1 << 20}));
  must(device_.fill(t, std::byte{1}));
}

TEST_F(CudaGpu, UploadsComeBack) {
  for (const std::int64_t bytes : {1, 4095, 262145, 5000001, 100000000}) {
    std::vector<std::byte> from(static_cast<std::size_t>(bytes)), back(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 2654435761u >> 13);
    const Tensor t = must(must(device_.allocate(DType::u8, {bytes + 3})).slice(0, 2, bytes + 2));
    must(device_.upload(t, from));
    must(device_.download(back, t));
    EXPECT_EQ(from, back) << bytes;
  }
}

TEST_F(CudaGpu, TransfersComeAfterTheWorkOfEveryQueue) {
  EncoderOptions other;
  other.queue = must(device_.create_queue());
  const Tensor a = must(device_.allocate(DType::u32, {64 << 20})), b = must(device_.allocate(DType::u32, {64 << 20}));
  for (int round = 1; round < 10; ++round) {
    CommandEncoder first = must(device_.encoder()), second = must(device_.encoder(other));
    for (int i = 0; i < 8; ++i) {
      must(first.fill(a, static_cast<std::byte>(round + i)));
      must(second.fill(b, static_cast<std::byte>(round + i)));
    }
    const Submission one = must(first.commit()), two = must(second.commit());
    EXPECT_EQ(words(must(a.slice(0, (64 << 20) - 1, 64 << 20)))[0], static_cast<std::uint32_t>(round + 7) * 0x01010101u);
    EXPECT_EQ(words(must(b.slice(0, 0, 1)))[0], static_cast<std::uint32_t>(round + 7) * 0x01010101u);
    must(one.wait());
    must(two.wait());
    EXPECT_GT(one.interval()->end, one.interval()->begin);
  }
}

TEST_F(CudaGpu, EnqueuedTransfersAndRows) {
  const Tensor from = must(device_.allocate(DType::u32, {3, 2, 8})), to = must(device_.allocate(DType::u32, {3, 2, 10}));
  std::vector<std::uint32_t> numbers(48), direct(60), replayed(60);
  std::iota(numbers.begin(), numbers.end(), 1u);
  const auto record = [&](CommandEncoder& encoder, std::vector<std::uint32_t>& back) -> Result<void> {
    MLXN_CHECK(encoder.upload(from, std::as_bytes(std::span(numbers))));
    MLXN_CHECK(encoder.copy(must(to.slice(2, 3, 8)), must(from.slice(2, 2, 7))));
    MLXN_CHECK(encoder.fill(must(to.slice(0, 2, 3)), std::byte{1}));
    MLXN_CHECK(set_element(encoder, must(to.reshape({60})), 0, 77));
    return encoder.download(std::as_writable_bytes(std::span(back)), to);
  };
  must(test::run(device_, [&](CommandEncoder& encoder) { return record(encoder, direct); }));
  EXPECT_EQ(direct[0], 77u);
  EXPECT_EQ(direct[3], 3u);
  EXPECT_EQ(direct[17], 15u);
  EXPECT_EQ(direct[59], 0x01010101u);
  Graph graph = must(Graph::record(device_, [&](CommandEncoder& encoder) { return record(encoder, replayed); }));
  must(graph.replay_and_wait());
  EXPECT_EQ(direct, replayed);
}

TEST_F(CudaGpu, AGraphTakesParametersAndBuffers) {
  const Tensor y = must(device_.allocate(DType::u32, {1000})), z = must(device_.allocate(DType::u32, {1000}));
  Graph graph = must(Graph::record(device_, [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_TRY(const auto index, encoder.parameter("index", 0));
    MLXN_TRY(const auto value, encoder.parameter("value", 0));
    for (int i = 0; i < 20; ++i) MLXN_CHECK(set_element(encoder, y, 999, i));
    return set_element(encoder, y, index, value);
  }));
  const std::uint32_t replays = test::wants_small_sizes("cuda") ? 60 : 900;
  for (std::uint32_t i = 0; i < replays; ++i) {
    must(graph.set("index", i));
    must(graph.set("value", i * 3));
    must(graph.replay_and_wait());
  }
  const auto values = words(y);
  for (std::uint32_t i = 0; i < replays; ++i) ASSERT_EQ(values[i], i * 3);
  EXPECT_EQ(values[999], 19u);
  EXPECT_EQ(device_.counters().graph_launches, replays);
  must(graph.rebind(y, z));
  Submission last;
  for (int i = 0; i < 100; ++i) last = must(graph.replay());
  must(last.wait());
  EXPECT_EQ(words(z)[replays - 1], (replays - 1) * 3);
}

TEST_F(CudaGpu, WorkEndsAlthoughNobodyWaitsAndCallsBack) {
  Tensor t = must(device_.allocate(DType::u8, {1 << 20}));
  const std::weak_ptr<Allocation> watch = t.allocation();
  std::atomic<bool> called{false};
  {
    CommandEncoder encoder = must(device_.encoder());
    must(encoder.fill(t, std::byte{1}));
    const Submission submission = must(encoder.commit());
    must(submission.on_complete([&](const Result<void>& result) { called = result.has_value(); }));
  }
  t = {};
  for (int i = 0; i < 4000 && (!called || !watch.expired()); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(called);
  EXPECT_TRUE(watch.expired());
}

TEST_F(CudaGpu, SharesAStreamWithTheCaller) {
  ASSERT_EQ(cudaSetDevice(must(native::cuda_ordinal(device_))), cudaSuccess);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  const Tensor t = must(device_.allocate(DType::u32, {16 << 20}));
  auto* const memory = static_cast<std::byte*>(must(native::cuda_pointer(t)));
  {
    EncoderOptions options;
    options.queue = must(native::cuda_queue(device_, stream));
    for (int i = 0; i < 20; ++i) ASSERT_EQ(cudaMemsetAsync(memory, i, t.bytes(), stream), cudaSuccess);
    CommandEncoder encoder = must(device_.encoder(options));
    must(encoder.fill(must(t.slice(0, 0, 8)), std::byte{2}));
    const Submission submission = must(encoder.commit());
    ASSERT_EQ(cudaMemsetAsync(memory, 3, 16, stream), cudaSuccess);
    EXPECT_EQ(words(must(t.slice(0, 0, 16))), (std::vector<std::uint32_t>{
        0x03030303, 0x03030303, 0x03030303, 0x03030303, 0x02020202, 0x02020202, 0x02020202, 0x02020202,
        0x13131313, 0x13131313, 0x13131313, 0x13131313, 0x13131313, 0x13131313, 0x13131313, 0x13131313}));
    must(submission.wait());
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    CommandEncoder captured = must(device_.encoder(options));
    must(captured.fill(t, std::byte{1}));
    EXPECT_TRUE(fails_with(captured.commit(), ErrorCode::wrong_state, {"captured"}));
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphDestroy(graph);
    must(captured.commit_and_wait());
  }
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(CudaGpu, ImportsWhatTheGpuSees) {
  std::vector<std::uint32_t> host(64);
  EXPECT_TRUE(fails_with(device_.import_memory(host.data(), 256, nullptr, DType::u32, {64}), ErrorCode::invalid_argument, {"pinned"}));
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 256), cudaSuccess);
  bool freed = false;
  {
    const Tensor t = must(device_.import_memory(memory, 256, [&] { freed = cudaFree(memory) == cudaSuccess; }, DType::u32, {64}));
    must(device_.fill(t, std::byte{3}));
    EXPECT_EQ(words(t)[63], 0x03030303u);
  }
  EXPECT_TRUE(freed);
}

constexpr const char* kSource = R"(
struct Constants { float factor; unsigned count; };
extern "C" __global__ void scale_by(const float* x, float* y, Constants c) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < c.count) y[i] = x[i] * c.factor;
}
extern "C" __global__ void reverse(float* y) {
  extern __shared__ float shared[];
  shared[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void store_far_away(float* y) { *(volatile float*)(16) = y[0]; }
)";

Result<std::shared_ptr<const Kernel>> user_kernel(const Device& device, std::string name, std::vector<KernelBindingInfo> bindings,
                                                  std::uint32_t constants_bytes, std::uint32_t shared_bytes = 0) {
  KernelInfo info;
  info.name = std::move(name);
  info.bindings = std::move(bindings);
  info.constants_bytes = constants_bytes;
  return device.kernels().register_cuda_source(info, {.code = kSource, .shared_bytes = shared_bytes});
}

TEST_F(CudaGpu, KernelsOfTheUser) {
  const auto scale = user_kernel(device_, "scale_by", {{Access::in}, {Access::out}}, 8);
  if (!scale && scale.error().code() == ErrorCode::unsupported) GTEST_SKIP() << scale.error().message();
  must(scale);
  const Tensor x = must(device_.allocate(DType::f32, {1000})), y = must(device_.allocate(DType::f32, {1000}));
  std::vector<float> values(1000);
  std::iota(values.begin(), values.end(), 0.0f);
  must(device_.upload(x, std::as_bytes(std::span(values))));
  const struct {
    float factor;
    std::uint32_t count;
  } constants{3.0f, 999};
  const auto record = [&](CommandEncoder& encoder) {
    const CommandEncoder::Binding bindings[] = {{x, Access::in}, {y, Access::out}};
    return encoder.dispatch({*scale, bindings, std::as_bytes(std::span(&constants, 1)), 999, {}});
  };
  must(test::run(device_, record));
  must(device_.download(std::as_writable_bytes(std::span(values)), y));
  EXPECT_EQ(values[998], 2994.0f);
  EXPECT_EQ(values[999], 0.0f);
  Graph graph = must(Graph::record(device_, record));
  must(device_.fill(y, std::byte{0}));
  must(graph.replay_and_wait());
  must(device_.download(std::as_writable_bytes(std::span(values)), y));
  EXPECT_EQ(values[998], 2994.0f);
  const auto reverse = must(user_kernel(device_, "reverse", {{Access::in_out}}, 0, 1024));
  must(test::run(device_, [&](CommandEncoder& encoder) {
    const CommandEncoder::Binding bindings[] = {{y, Access::in_out}};
    return encoder.dispatch({reverse, bindings, {}, 256, {}});
  }));
  must(device_.download(std::as_writable_bytes(std::span(values)), y));
  EXPECT_EQ(values[0], 765.0f);
  EXPECT_EQ(values[255], 0.0f);
  EXPECT_TRUE(fails_with(user_kernel(device_, "absent", {}, 0), ErrorCode::not_found, {"absent"}));
  EXPECT_TRUE(fails_with(user_kernel(device_, "scale_by", {{Access::in}}, 8), ErrorCode::invalid_argument, {"3 parameters"}));
  EXPECT_TRUE(fails_with(user_kernel(device_, "scale_by", {{Access::in}, {Access::out}}, 16), ErrorCode::invalid_argument, {"16"}));
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
}

struct CountArgs {
  InOut<std::uint32_t> y;
};

// Shared memory beyond 48 KiB, clusters and early starts, on a stream and as nodes of a graph: every launch adds to what the
// one before it has left, also where it may start before that one has ended.
TEST_F(CudaGpu, KernelsOfOneArchitectureGetWhatTheirHandlesSay) {
  int major = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, must(native::cuda_ordinal(device_))), cudaSuccess);
  if (major < 9) GTEST_SKIP() << "clusters and early starts want compute capability 9.0, this is " << major;
  constexpr std::uint32_t kSharedWords = (200 << 10) / 4;
  KernelInfo info;
  info.name = "count_up";
  info.bindings = {{Access::in_out}};
  const auto kernel = device_.kernels().register_cuda_source(info, {.code = R"(
extern "C" __global__ void count_up(unsigned* y) {
  extern __shared__ unsigned shared[];
  const unsigned last = 200 * 1024 / 4 - 1;
  if (threadIdx.x == 0) shared[last] = 1;
  __syncthreads();
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  unsigned size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  for (int spin = 0; spin < 200; ++spin) asm volatile("nanosleep.u32 20;");
  y[i] += shared[last] * size;
})", .group_threads = 256, .shared_bytes = kSharedWords * 4});
  if (!kernel && kernel.error().code() == ErrorCode::unsupported) GTEST_SKIP() << kernel.error().message();
  const gpu::KernelInfo large{"count_up", 256, 0, sizeof(CountArgs), kSharedWords * 4, {2, 1, 1}, true};
  large.device_function = static_cast<const cuda::UserCode&>(*must(kernel)->code()).function();
  const gpu::Kernel<CountArgs> handle{&large};
  constexpr std::uint32_t kGroups = 200, kLaunches = 50;
  const Tensor y = must(device_.allocate(DType::u32, {kGroups * 256}));
  const auto record = [&](CommandEncoder& encoder) -> Result<void> {
    Launch<CountArgs> launch;
    launch.bind(launch.args.y, y);
    for (std::uint32_t i = 0; i < kLaunches; ++i) MLXN_CHECK(gpu::encode(encoder, handle, {kGroups}, launch));
    return {};
  };
  must(test::run(device_, record));
  EXPECT_EQ(words(y), std::vector<std::uint32_t>(kGroups * 256, 2 * kLaunches));
  Graph graph = must(Graph::record(device_, record));
  must(graph.replay_and_wait());
  must(graph.replay_and_wait());
  EXPECT_EQ(words(y), std::vector<std::uint32_t>(kGroups * 256, 6 * kLaunches));
  EncoderOptions serial;
  serial.hazards = HazardMode::serial;
  CommandEncoder encoder = must(device_.encoder(serial));
  must(record(encoder));
  must(encoder.commit_and_wait());
  EXPECT_EQ(words(y), std::vector<std::uint32_t>(kGroups * 256, 8 * kLaunches));
  EncoderOptions plain_edges;
  plain_edges.early_starts = false;
  Graph plain_graph = must(Graph::record(device_, record, plain_edges));
  must(plain_graph.replay_and_wait());
  EXPECT_EQ(words(y), std::vector<std::uint32_t>(kGroups * 256, 10 * kLaunches));
}

/// Runs a kernel that stores where no memory is; the process is of no use to CUDA afterwards. 0 if all errors are as they
/// should be.
int fault(HazardMode hazards, bool replay) {
  alarm(120);  // a hang is a failure too
  const auto said = [](const Error& error, ErrorCode code, std::string_view word) {
    return error.code() == code && error.message().find(word) != std::string_view::npos;
  };
  const Device device = must(Device::open("cuda"));
  const auto kernel = must(user_kernel(device, "store_far_away", {{Access::in_out}}, 0));
  const Tensor y = must(device.allocate(DType::f32, {256}));
  EncoderOptions options;
  options.hazards = hazards;
  const auto record = [&](CommandEncoder& encoder) -> Result<void> {
    MLXN_CHECK(encoder.fill(y, std::byte{1}));
    const CommandEncoder::Binding bindings[] = {{y, Access::in_out}};
    return encoder.dispatch({kernel, bindings, {}, 256, {}});
  };
  Result<void> result;
  if (replay) {
    Graph graph = must(Graph::record(device, record, options));
    result = graph.replay_and_wait();
  } else {
    CommandEncoder encoder = must(device.encoder(options));
    must(record(encoder));
    result = encoder.commit_and_wait();
  }
  if (result || !said(result.error(), ErrorCode::device, "store_far_away")) return 1;
  if (hazards == HazardMode::serial && said(result.error(), ErrorCode::device, "fill")) return 2;
  const auto after = device.allocate(DType::u8, {1});
  if (after || !said(after.error(), ErrorCode::device_lost, "cudaErrorIllegalAddress")) return 3;
  std::byte byte{};
  const auto download = device.download(std::span(&byte, 1), must(must(y.reinterpret(DType::u8, {1024})).slice(0, 0, 1)));
  if (download || !said(download.error(), ErrorCode::device_lost, "cudaErrorIllegalAddress")) return 4;
  if (!device.default_queue().wait_idle()) return 5;
  const auto again = Device::open("cuda");
  if (again || again.error().code() != ErrorCode::device_lost) return 6;
  return 0;
}

TEST_F(CudaGpu, AFaultIsATypedErrorAndNoHang) {
  const auto kernel = user_kernel(device_, "store_far_away", {{Access::in_out}}, 0);
  if (!kernel && kernel.error().code() == ErrorCode::unsupported) GTEST_SKIP() << kernel.error().message();
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process of its own, not a copy of this one
  EXPECT_EXIT(std::_Exit(fault(HazardMode::automatic, false)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(std::_Exit(fault(HazardMode::serial, false)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(std::_Exit(fault(HazardMode::automatic, true)), testing::ExitedWithCode(0), "");
  must(device_.fill(must(device_.allocate(DType::u8, {1})), std::byte{1}));
}

}  // namespace
}  // namespace mlxn
