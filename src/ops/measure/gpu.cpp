#include "ops/measure/gpu.h"

#include "backends/gpu/launch.h"
#include "ops/measure/kernel.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

constexpr std::uint32_t kGroupsPerCore = 8;  // 2048 threads: as many as a core of any GPU holds

gpu::Grid grid_of(const CommandEncoder& encoder) { return {gpu::device_cores(encoder) * kGroupsPerCore}; }

}  // namespace

Result<void> measure_read_gpu(CommandEncoder& encoder, const Launch<MeasureReadArgs>& launch) {
  return gpu::encode(encoder, gpu::measure_read, grid_of(encoder), launch);
}

Result<void> measure_arithmetic_gpu(CommandEncoder& encoder, const Launch<MeasureArithmeticArgs>& launch) {
  return gpu::encode(encoder, gpu::measure_arithmetic, grid_of(encoder), launch);
}

Result<void> measure_empty_gpu(CommandEncoder& encoder, const Launch<MeasureEmptyArgs>& launch) {
  return gpu::encode(encoder, gpu::measure_empty, {1}, launch);
}

std::uint64_t measure_arithmetic_ops_gpu(std::uint64_t cores) noexcept {
  return cores * kGroupsPerCore * gpu::MeasureArithmetic::kThreads * gpu::MeasureArithmetic::kOps;
}

}  // namespace ops
}  // namespace mlxn
