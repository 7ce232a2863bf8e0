#include "ops/matmul/gpu.h"

#include <algorithm>

#include "backends/gpu/launch.h"
#include "base/error.h"
#include "ops/matmul/kernel.h"
#include "ops/matmul/hopper.h"
#include "ops/prepare_weight/prepare_weight.h"
#include "ops/weight_records/weight_records.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

using MatmulKernel = gpu::Kernel<MatmulGpuArgs>;

/// The instances of one format.
struct FormatKernels {
  MatmulKernel vector1, vector4, vector8;  // by rows of x
  MatmulKernel vector1_any, vector8_any;   // weights at any address
  MatmulKernel tile32, tile128;
};

FormatKernels kernels_of(DType type) noexcept {
  using namespace gpu;
  switch (type) {
#define MLXN_INSTANCES(name)                                                                                     \
  FormatKernels {                                                                                              \
    matmul_vector1_##name, matmul_vector4_##name, matmul_vector8_##name, matmul_vector1_any_##name,            \
        matmul_vector8_any_##name, matmul_tile32_##name, matmul_tile128_##name                                 \
  }
#define MLXN_FORMAT(name) \
  case DType::name: return MLXN_INSTANCES(name);
    MLXN_FORMAT(f32)
    MLXN_FORMAT(f16)
    MLXN_FORMAT(bf16)
    MLXN_FORMAT(q4_0)
    MLXN_FORMAT(q4_1)
    MLXN_FORMAT(q5_0)
    MLXN_FORMAT(q5_1)
    MLXN_FORMAT(q8_0)
    MLXN_FORMAT(q2_K)
    MLXN_FORMAT(q3_K)
    MLXN_FORMAT(q4_K)
    MLXN_FORMAT(q5_K)
    MLXN_FORMAT(q6_K)
    MLXN_FORMAT(iq4_nl)
    MLXN_FORMAT(iq4_xs)
    MLXN_FORMAT(mxfp4)
#undef MLXN_FORMAT
    default: break;
  }
  const auto affine = affine_info(type);
  if (!affine) return {};  // no weight type: excluded by the checks
  return affine->bits == 4 ? MLXN_INSTANCES(affine4) : MLXN_INSTANCES(affine8);
#undef MLXN_INSTANCES
}

constexpr std::uint32_t kVectorSimds = gpu::MatmulVector<gpu::Q4_0, true, 1, gpu::kVectorRows>::kSimds;  // of a group

// Memory for rows of x made ready, and for raw blocks laid out anew, at a time.
constexpr std::int64_t kStageBytes = std::int64_t{64} << 20;
constexpr std::int64_t kPlanesBytes = std::int64_t{32} << 20;
constexpr std::int64_t kSlabRows = 128;  // slabs are multiples of a tile

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// A kernel and the part of y that a group of it makes.
struct Instance {
  MatmulKernel kernel;
  std::uint32_t rows, columns;
};

/// SIMD-groups that share rows of w: as many as find work in a row. Depends on the weight alone, so that sums keep their
/// order whatever m is.
std::uint32_t split_of(const MatmulShape& shape) noexcept {
  const std::int64_t units = shape.k / (is_block(shape.type) ? 32 : 8);  // that threads take
  return units >= 128 ? 4 : units >= 64 ? 2 : 1;
}

Instance vector_instance(const MatmulShape& shape, bool wide) noexcept {
  const FormatKernels kernels = kernels_of(shape.type);
  const std::uint32_t columns = kVectorSimds / split_of(shape) * gpu::kVectorRows;
  if (shape.m == 1) return {wide ? kernels.vector1 : kernels.vector1_any, 1, columns};
  if (shape.m <= 4 && wide) return {kernels.vector4, 4, columns};
  return {wide ? kernels.vector8 : kernels.vector8_any, 8, columns};
}

/// Large tiles need fewer loads for a product; they are taken once they occupy half of the device. Both give the same bits.
Instance tile_instance(const MatmulShape& shape, std::uint32_t cores) noexcept {
  const FormatKernels kernels = kernels_of(shape.type);
  const bool large = shape.m > 64 && ceil_div(shape.m, 128) * ceil_div(shape.n, 128) * 2 >= cores;
  return large ? Instance{kernels.tile128, 128, 128} : Instance{kernels.tile32, 32, 64};
}

/// Whether the kernels can read x where it lies.
bool is_ready(const Tensor& x, Numerics numerics) noexcept {
  const auto row_bytes = static_cast<std::uint64_t>(x.stride(0)) * sizeof(float);
  return x.dtype() == DType::f32 && numerics == Numerics::exact && reinterpret_cast<std::uintptr_t>(device_address(x)) % 16 == 0 &&
         (x.dim(0) == 1 || row_bytes % 16 == 0);
}

/// One launch: rows of x that are ready, with weights in the layout of `view`.
Result<void> multiply(std::string_view op, CommandEncoder& encoder, const Instance& instance, const Tensor& x, const Tensor& weights,
                      const quant::GpuWeight& view, const Tensor& y, const MatmulShape& shape) {
  Launch<MatmulGpuArgs> launch;
  MatmulGpuArgs& args = launch.args;
  args.w = view;
  launch.bind(args.w.data, weights);
  launch.bind(args.x, x);
  launch.bind(args.y, y);
  set_even(shape.type, args.w, device_address(weights));
  args.m = y.dim(0);
  args.n = y.dim(1);
  args.k = shape.k;
  args.x_stride = x.stride(0);
  args.y_stride = y.stride(0);
  args.y_type = element_type(y.dtype());
  args.split = split_of(shape);
  MLXN_TRY(const std::uint32_t columns, gpu::groups_for(op, args.n, instance.columns));
  const std::int64_t rows = std::min<std::int64_t>(ceil_div(args.m, instance.rows), gpu::kMaxGridYZ);
  return gpu::encode(encoder, instance.kernel, {columns, static_cast<std::uint32_t>(rows)}, launch);
}

}  // namespace

Result<void> stage_matmul_rows(std::string_view op, CommandEncoder& encoder, const Tensor& x, const Tensor& out, Numerics numerics) {
  Launch<MatmulStageArgs> launch;
  launch.bind(launch.args.x, x);
  launch.bind(launch.args.out, out);
  launch.args.m = x.dim(0);
  launch.args.k = x.dim(1);
  launch.args.x_stride = x.stride(0);
  launch.args.out_stride = out.stride(0);
  launch.args.x_type = element_type(x.dtype());
  launch.args.out_type = element_type(out.dtype());
  launch.args.round_to = numerics == Numerics::f16 ? quant::kElementF16 : numerics == Numerics::bf16 ? quant::kElementBf16 : quant::kElementF32;
  MLXN_TRY(const std::uint32_t columns, gpu::groups_for(op, x.dim(1), gpu::MatmulStage::kThreads));
  const auto rows = static_cast<std::uint32_t>(std::min<std::int64_t>(x.dim(0), gpu::kMaxGridYZ));
  return gpu::encode(encoder, gpu::matmul_stage, {columns, rows}, launch);
}

Result<void> matmul_gpu(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& operand, const Tensor& y,
                        const MatmulShape& shape, const MatmulChoice& choice) {
  if (wants_hopper(operand.form, shape.type, choice.numerics) && takes_hopper(shape, choice, gpu::device_cores(encoder))) {
    return matmul_hopper(op, encoder, x, operand, y, shape, choice);
  }
  const Tensor& weights = operand.bytes;
  const bool records = operand.form == WeightForm::records;
  const WeightLayout layout = operand.form == WeightForm::raw ? raw_layout(shape.type, shape.n, shape.k)
                                                              : prepared_layout(shape.type, shape.n, shape.k);
  MLXN_CHECK(check_gpu_row(op, shape.type, shape.k));
  const bool wide = records || is_wide(shape.type, layout.view, device_address(weights));
  const Instance instance =
      choice.route == Route::vector ? vector_instance(shape, wide) : tile_instance(shape, gpu::device_cores(encoder));

  // Rows of x at a time, if they have to be made ready; rows of w at a time, if they have to be laid out anew.
  const bool ready = is_ready(x, choice.numerics), apart = records || (choice.route == Route::tile && !wide);
  const std::int64_t x_stride = ceil_div(shape.k, 4) * 4;
  const std::int64_t x_rows = std::max(kStageBytes / (x_stride * 4) / kSlabRows * kSlabRows, kSlabRows);
  const std::int64_t m_step = ready ? shape.m : std::min(shape.m, x_rows);
  const auto row_bytes = static_cast<std::int64_t>(raw_layout(shape.type, 1, shape.k).bytes);
  const std::int64_t w_rows = std::max(kPlanesBytes / row_bytes / kSlabRows * kSlabRows, kSlabRows);
  const std::int64_t n_step = apart ? std::min(shape.n, w_rows) : shape.n;

  // Scratch memory comes before the first launch: nothing is recorded if there is none.
  Tensor staged, planes;
  if (!ready) {
    MLXN_TRY(const Tensor bytes, gpu::scratch(encoder, static_cast<std::uint64_t>(m_step * x_stride) * sizeof(float)));
    MLXN_TRY(staged, bytes.reinterpret(DType::f32, {m_step, x_stride}));
  }
  if (apart) {
    MLXN_TRY(planes, gpu::scratch(encoder, prepared_layout(shape.type, n_step, shape.k).bytes));
  }

  for (std::int64_t n = 0; n < shape.n; n += n_step) {
    const std::int64_t n_end = std::min(n + n_step, shape.n);
    quant::GpuWeight view = layout.view;
    if (apart) {
      view = prepared_layout(shape.type, n_step, shape.k).view;
      if (records) {
        MLXN_CHECK(encode_unpack_records(encoder, weights, planes, view, shape.type, shape.n, shape.k, {n, n_end - n, nullptr}));
      } else {
        MLXN_TRY(const Tensor raw, Tensor::make(weights.allocation(), DType::u8, {(n_end - n) * row_bytes},
                                                weights.byte_offset() + static_cast<std::uint64_t>(n * row_bytes)));
        const std::int64_t units = is_block(shape.type) ? (n_end - n) * layout.view.row_blocks : n_end - n;
        MLXN_CHECK(encode_prepare_weight(encoder, raw, planes, shape.type, n_step, shape.k, 0, units));
      }
    }
    for (std::int64_t m = 0; m < shape.m; m += m_step) {
      const std::int64_t m_end = std::min(m + m_step, shape.m);
      MLXN_TRY(Tensor rows, x.slice(0, m, m_end));
      if (!ready) {
        MLXN_TRY(const Tensor out, staged.slice(0, 0, m_end - m));
        MLXN_CHECK(stage_matmul_rows(op, encoder, rows, out, choice.numerics));
        rows = out;
      }
      MLXN_TRY(const Tensor y_rows, y.slice(0, m, m_end));
      MLXN_TRY(const Tensor part, y_rows.slice(1, n, n_end));
      MLXN_CHECK(multiply(op, encoder, instance, rows, apart ? planes : weights, view, part, shape));
    }
  }
  return {};
}

MatmulGpuPlan plan_matmul_gpu(const MatmulShape& shape, WeightForm form, const MatmulChoice& choice, std::uint32_t cores) noexcept {
  if (wants_hopper(form, shape.type, choice.numerics) && takes_hopper(shape, choice, cores)) return plan_matmul_hopper(shape, choice, cores);
  const WeightLayout layout =
      form == WeightForm::raw ? raw_layout(shape.type, shape.n, shape.k) : prepared_layout(shape.type, shape.n, shape.k);
  const bool records = form == WeightForm::records;
  const bool wide = records || is_wide(shape.type, layout.view, nullptr), tile = choice.route == Route::tile;
  const Instance instance = tile ? tile_instance(shape, cores) : vector_instance(shape, wide);
  return {instance.kernel.info->name, instance.rows, records || (tile && !wide), tile};
}

}  // namespace ops
}  // namespace mlxn
