#include "ops/matmul/hopper.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "ops/matmul/hopper_vector.h"
#include "ops/prepare_weight/prepare_weight.h"

namespace mlxn::ops {
namespace {

constexpr gpu::KernelInfo vector_info(std::string_view name) {
  return {name, kHopperVectorThreads, 0, sizeof(HopperVectorArgs), kHopperVectorShared, {}, true};
}
// By type and rows of x, as vector_kernel() counts them.
const gpu::KernelInfo kVectorKernels[] = {
#define MLXN_INFO(rows, type) vector_info("matmul_hopper_vector" #rows "_" #type),
#define MLXN_INFOS(type) MLXN_HOPPER_VECTOR_INSTANCES(MLXN_INFO, type)
    MLXN_HOPPER_VECTOR_TYPES(MLXN_INFOS)
#undef MLXN_INFOS
#undef MLXN_INFO
};
constexpr std::int64_t kVectorRows[] = {1, 2, 4, 8};

const gpu::KernelInfo* vector_kernel(DType type, std::uint32_t rows) noexcept {
  std::size_t index = 0;
#define MLXN_COUNT(type_of) \
  if (type == DType::type_of) return &kVectorKernels[index + (rows == 1 ? 0 : rows == 2 ? 1 : rows == 4 ? 2 : 3)]; \
  index += std::size(kVectorRows);
  MLXN_HOPPER_VECTOR_TYPES(MLXN_COUNT)
#undef MLXN_COUNT
  return nullptr;
}

constexpr std::int64_t kInvariantRows = 4;

/// The most rows of x that one launch of the vector kernel takes, 0 if it takes none.
std::int64_t vector_rows(const MatmulShape& shape, bool batch_invariant, std::uint32_t cores) noexcept {
  if (batch_invariant) return plan_hopper_vector(shape.type, 1, shape.n, shape.k, cores, true) ? kInvariantRows : 0;
  for (std::int64_t rows = 8; rows >= 1; rows /= 2) {
    if (plan_hopper_vector(shape.type, rows, shape.n, shape.k, cores, false)) return rows;
  }
  return 0;
}

/// Whether the kernel can read x where it lies.
bool is_loadable(const Tensor& x) noexcept {
  const auto row_bytes = static_cast<std::uint64_t>(x.stride(0)) * block_bytes(x.dtype());
  return (x.dtype() == DType::f32 || x.dtype() == DType::f16) && reinterpret_cast<std::uintptr_t>(device_address(x)) % 16 == 0 &&
         (x.dim(0) == 1 || row_bytes % 16 == 0);
}

Result<void> multiply_vector(std::string_view op, CommandEncoder& encoder, const Tensor& x, const Tensor& weights, const Tensor& y,
                             const MatmulShape& shape, bool batch_invariant) {
  const std::uint32_t cores = gpu::device_cores(encoder);
  const std::int64_t most = vector_rows(shape, batch_invariant, cores);
  Tensor staged;
  if (!is_loadable(x)) {
    const std::int64_t stride = (shape.k + 3) / 4 * 4;
    MLXN_TRY(const Tensor bytes, gpu::scratch(encoder, static_cast<std::uint64_t>(std::min(most, shape.m) * stride) * sizeof(float)));
    MLXN_TRY(staged, bytes.reinterpret(DType::f32, {std::min(most, shape.m), stride}));
  }
  for (std::int64_t m = 0; m < shape.m; m += most) {
    const std::int64_t m_end = std::min(m + most, shape.m);
    MLXN_TRY(Tensor rows, x.slice(0, m, m_end));
    if (staged.defined()) {
      MLXN_TRY(const Tensor out, staged.slice(0, 0, m_end - m));
      MLXN_CHECK(stage_matmul_rows(op, encoder, rows, out, Numerics::exact));
      rows = out;
    }
    MLXN_TRY(const Tensor y_rows, y.slice(0, m, m_end));
    const HopperVectorPlan plan = plan_hopper_vector(shape.type, m_end - m, shape.n, shape.k, cores, batch_invariant);
    Launch<HopperVectorArgs> launch;
    launch.args = plan.args;
    launch.bind(launch.args.records, weights);
    launch.bind(launch.args.x, rows);
    launch.bind(launch.args.y, y_rows);
    launch.args.x_stride = rows.stride(0);
    launch.args.y_stride = y_rows.stride(0);
    launch.args.x_type = element_type(rows.dtype());
    launch.args.y_type = element_type(y.dtype());
    MLXN_CHECK(gpu::encode_erased(encoder, *vector_kernel(shape.type, plan.rows), {plan.grid}, &launch.args, launch.record));
  }
  return {};
}

}  // namespace

bool has_hopper_kernels(DType type) noexcept { return vector_kernel(type, 1) != nullptr; }

bool takes_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept {
  return choice.route == Route::vector && vector_rows(shape, choice.batch_invariant, cores) > 0;
}

std::int64_t hopper_vector_threshold(const MatmulShape& shape, std::uint32_t cores) noexcept {
  return std::max<std::int64_t>(vector_rows(shape, false, cores), 4);
}

Result<void> matmul_hopper(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y,
                           const MatmulShape& shape, const MatmulChoice& choice) {
  return multiply_vector(op, encoder, x, weights.bytes, y, shape, choice.batch_invariant);
}

MatmulGpuPlan plan_matmul_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept {
  const std::int64_t most = vector_rows(shape, choice.batch_invariant, cores);
  const HopperVectorPlan plan = plan_hopper_vector(shape.type, std::min(most, shape.m), shape.n, shape.k, cores, choice.batch_invariant);
  return {plan.kernel, most, false, false};
}

std::span<const gpu::KernelInfo> hopper_kernels() noexcept { return kVectorKernels; }

}  // namespace mlxn::ops
