// What holds of a build with the CUDA backend on any machine, with or without a GPU.
#include <chrono>

#include "backends/cuda/command_list.h"
#include "backends/cuda/kernel_table.h"
#include "backends/cuda/nvrtc.h"
#include "backends/cuda/transfer.h"
#include "mlxn/native/cuda.h"
#include "ops/attention/mma_shape.h"
#include "ops/cached_attention/cached_attention.h"
#include "ops/matmul/hopper.h"
#include "tests/support/gpu_handles.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;

TEST(CudaStart, OpensOrSaysWhyNot) {
  const auto begin = std::chrono::steady_clock::now();
  const auto device = Device::open("cuda");
  const Device automatic = must(Device::open("auto"));
  if (device) {
    EXPECT_EQ(automatic.capabilities().backend, "cuda");
    EXPECT_GE(device->capabilities().compute_units, 1);
  } else {
    EXPECT_TRUE(device.error().code() == ErrorCode::not_found || device.error().code() == ErrorCode::unsupported) << device.error().message();
    EXPECT_EQ(device.error().message().substr(0, 6), "cuda: ");
    EXPECT_EQ(automatic.capabilities().backend, "cpu");
    EXPECT_EQ(automatic.capabilities().selection_reason, device.error().message());
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  }
  const Device cpu = must(Device::open("cpu"));
  must(cpu.fill(must(cpu.allocate(DType::u8, {8})), std::byte{1}));
}

TEST(CudaStart, NumbersThatNoDeviceHas) {
  EXPECT_TRUE(fails_with(Device::open("cuda:999"), ErrorCode::not_found, {"cuda"}));
  EXPECT_TRUE(fails_with(Device::open("cuda:x"), ErrorCode::invalid_argument, {"cuda:x"}));
  EXPECT_TRUE(fails_with(Device::open("cuda:"), ErrorCode::invalid_argument, {"cuda:"}));
}

TEST(CudaStart, EveryHandleHasAKernelOfItsLayout) {
  auto handles = test::gpu_handles();
  EXPECT_GE(handles.size(), 20u);
  for (const gpu::KernelInfo* own : ops::hopper_kernels()) handles.push_back(own);
  for (const gpu::KernelInfo* own : ops::cached_attention_kernels()) handles.push_back(own);
  for (const gpu::KernelInfo* handle : handles) {
    const cuda::KernelEntry* const entry = cuda::find_kernel(handle->name);
    ASSERT_NE(entry, nullptr) << handle->name;
    EXPECT_NE(entry->function, nullptr) << handle->name;
    EXPECT_EQ(entry->args_bytes, handle->args_bytes) << handle->name;
    EXPECT_EQ(entry->shared_bytes, handle->shared_bytes) << handle->name;
    EXPECT_EQ(entry->threads, handle->threads) << handle->name;
    EXPECT_LE(entry->shared_bytes, 48u << 10) << handle->name;
    EXPECT_EQ(entry->threads % 32, 0u) << handle->name;
    EXPECT_EQ(cuda::kernel_function(*handle), entry->function);
  }
  EXPECT_EQ(cuda::find_kernel("no_such_kernel"), nullptr);
}

TEST(CudaStart, AttentionOnMatrixInstructionsIsThere) {
  int count = 0;
#define MLXN_CHECK_ENTRY(name, dim)                                                     \
  if (const cuda::KernelEntry* const entry = cuda::find_kernel(#name)) {                \
    EXPECT_EQ(entry->args_bytes, sizeof(ops::AttentionArgs)) << #name;                  \
    EXPECT_EQ(entry->shared_bytes, 0u) << #name;                                        \
    EXPECT_EQ(entry->threads, unsigned{ops::AttentionMmaShape<dim>::kThreads}) << #name; \
    ++count;                                                                            \
  }
  MLXN_ATTENTION_MMA_KERNELS(MLXN_CHECK_ENTRY)
#undef MLXN_CHECK_ENTRY
  EXPECT_EQ(count, 3);
}

TEST(CudaStart, NativeHandlesAreOfCudaDevices) {
  EXPECT_TRUE(fails_with(native::cuda_ordinal(must(Device::open("cpu"))), ErrorCode::wrong_device, {"cpu"}));
}

TEST(CudaStart, PiecesOfTransfersFitTheBuffers) {
  EXPECT_EQ(cuda::Transfer::piece_bytes(1), std::uint64_t{256} << 10);
  EXPECT_EQ(cuda::Transfer::piece_bytes(std::uint64_t{4} << 20), std::uint64_t{1} << 20);
  EXPECT_EQ(cuda::Transfer::piece_bytes((std::uint64_t{4} << 20) + 4), (std::uint64_t{1} << 20) + (64 << 10));
  EXPECT_EQ(cuda::Transfer::piece_bytes(std::uint64_t{1} << 40), std::uint64_t{16} << 20);
}

constexpr const char* kAdd = R"(extern "C" __global__ void add(float* x, float v) { x[threadIdx.x] += v; })";

TEST(Nvrtc, CompilesToMachineCodeOfAnyDevice) {
  for (const int capability : {80, 90, 75, 120, 999}) {
    const auto image = cuda::compile_source("add", kAdd, {}, capability);
    if (!image && image.error().code() == ErrorCode::unsupported) GTEST_SKIP() << image.error().message();
    const bool known = capability != 999;
    EXPECT_EQ(must(image).substr(1, 3) == "ELF", known) << capability;
    if (!known) {
      EXPECT_NE(image->find(".entry add"), std::string::npos);
    }
  }
  EXPECT_TRUE(fails_with(cuda::compile_source("add", kAdd, {}, 10), ErrorCode::unsupported, {"1.0"}));
}

TEST(Nvrtc, FailsWithTheCompilersLog) {
  const auto missing = cuda::compile_source("add", "extern \"C\" __global__ void add() { unknown(1); }", {}, 90);
  if (!missing && missing.error().code() == ErrorCode::unsupported) GTEST_SKIP() << missing.error().message();
  EXPECT_TRUE(fails_with(missing, ErrorCode::compile, {"add", "add.cu(1)", "unknown"}));
  const std::string options[] = {"-DVALUE=", "-DVALUE"};
  EXPECT_TRUE(fails_with(cuda::compile_source("add", "#error no", options, 90), ErrorCode::compile, {"no"}));
  const std::string define[] = {"-DNAME=add"};
  must(cuda::compile_source("add", "extern \"C\" __global__ void NAME() {}", define, 90));
}

}  // namespace
}  // namespace mlxn
