#include "ops/matmul/hopper.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "ops/matmul/hopper_tile.h"
#include "ops/matmul/hopper_vector.h"
#include "ops/prepare_weight/prepare_weight.h"
#include "ops/weight_records/weight_records.h"
#include "quant/records.h"

namespace mlxn::ops {
namespace {

constexpr gpu::KernelInfo vector_info(std::string_view name, std::uint32_t cluster) {
  return {name, kHopperVectorThreads, 0, sizeof(HopperVectorArgs), kHopperVectorShared, {cluster, 1, 1}, true};
}
// By type and rows of x, as vector_kernel() counts them, and blocks of a cluster.
const gpu::KernelInfo kVectorKernels[][kHopperVectorMostParts] = {
#define MLXN_INFO(rows, type) {vector_info("matmul_hopper_vector" #rows "_" #type, 1), vector_info("matmul_hopper_vector" #rows "_" #type, 2)},
#define MLXN_INFOS(type) MLXN_HOPPER_VECTOR_INSTANCES(MLXN_INFO, type)
    MLXN_HOPPER_VECTOR_TYPES(MLXN_INFOS)
#undef MLXN_INFOS
#undef MLXN_INFO
};
constexpr std::uint32_t kVectorRows[] = {4, 2, 1};

const gpu::KernelInfo* vector_kernel(DType type, std::uint32_t rows, std::uint32_t cluster = 1) noexcept {
  std::size_t index = 0;
#define MLXN_COUNT(type_of) \
  if (type == DType::type_of) return &kVectorKernels[index + (rows == 1 ? 0 : rows == 2 ? 1 : 2)][cluster - 1]; \
  index += std::size(kVectorRows);
  MLXN_HOPPER_VECTOR_TYPES(MLXN_COUNT)
#undef MLXN_COUNT
  return nullptr;
}

constexpr gpu::KernelInfo tile_info(std::string_view name, const tile::Shape& shape, bool paired) {
  return {name, static_cast<std::uint32_t>(shape.threads()), 0, sizeof(HopperTileArgs), static_cast<std::uint32_t>(shape.shared_bytes()),
          {shape.form == tile::Form::pair ? 2u : 1u, 1, paired && shape.can_pair() ? 2u : 1u}, true};
}
// By type and kind; first as they are, then those with parts of k in pairs.
template <bool kPaired>
const gpu::KernelInfo kTileKernels[] = {
#define MLXN_KINDS(type, shape_of, first)                                      \
  tile_info("matmul_hopper_tile16_" #type, shape_of(first), kPaired),          \
      tile_info("matmul_hopper_tile32_" #type, shape_of(first + 1), kPaired),  \
      tile_info("matmul_hopper_tile64_" #type, shape_of(first + 2), kPaired),  \
      tile_info("matmul_hopper_tile128_" #type, shape_of(first + 3), kPaired), \
      tile_info("matmul_hopper_tile256_" #type, shape_of(first + 4), kPaired), \
      tile_info("matmul_hopper_pair256_" #type, shape_of(first + 5), kPaired),
#define MLXN_INFOS(type)                                                               \
  tile_info("matmul_hopper_tile8_" #type, hopper_tile_shape(DType::type, 0), kPaired), \
      MLXN_KINDS(type, [](int kind) { return hopper_tile_shape(DType::type, kind); }, 1)
    MLXN_HOPPER_VECTOR_TYPES(MLXN_INFOS)
    MLXN_KINDS(f16, tile::dense_shape_of, 0)
    MLXN_KINDS(bf16, tile::dense_shape_of, 0)
    MLXN_KINDS(bf16_narrow, tile::dense_shape_of, 0)
#undef MLXN_INFOS
#undef MLXN_KINDS
};
const gpu::KernelInfo kStageKernel = {"matmul_hopper_stage", 512, 64, sizeof(HopperStageArgs), 0, {}, true};
const gpu::KernelInfo kStageNormedKernel = {"matmul_hopper_stage_normed", 512, 128, sizeof(HopperStageArgs), 0, {}, true};

const gpu::KernelInfo& tile_kernel(const HopperTilePlan& plan) noexcept {
  const auto find = [&](const auto& kernels) -> const gpu::KernelInfo& {
    return *std::find_if(std::begin(kernels), std::end(kernels), [&](const gpu::KernelInfo& info) { return info.name == plan.kernel; });
  };
  return plan.args.paired != 0 ? find(kTileKernels<true>) : find(kTileKernels<false>);
}

/// Rows of x that are staged at a time for tiles, a multiple of any tile's.
constexpr std::int64_t kTileRows = 8192;

/// The most rows of x that one launch of the vector kernel takes, 0 if it takes none.
std::int64_t vector_rows(const MatmulShape& shape, bool batch_invariant, std::uint32_t cores, bool gated = false) noexcept {
  for (const std::uint32_t rows : kVectorRows) {
    if (plan_hopper_vector(shape.type, rows, shape.n, shape.k, cores, batch_invariant, gated)) return rows;
  }
  return 0;
}

/// Whether the vector kernel can read x where it lies.
bool is_loadable(const Tensor& x) noexcept {
  const auto row_bytes = static_cast<std::uint64_t>(x.stride(0)) * block_bytes(x.dtype());
  return reinterpret_cast<std::uintptr_t>(device_address(x)) % 16 == 0 &&
         (x.dim(0) == 1 || row_bytes % 16 == 0);
}

Result<void> multiply_vector(std::string_view op, CommandEncoder& encoder, const Tensor& x, const Tensor& weights, const Tensor& y,
                             const MatmulShape& shape, bool batch_invariant, const MatmulFusion& fusion = {}) {
  const std::uint32_t cores = gpu::device_cores(encoder);
  const bool gated = fusion.gate != MatmulGate::none;
  const std::int64_t most = vector_rows(shape, batch_invariant, cores, gated);
  Tensor staged;
  if (!is_loadable(x)) {
    // Of its own type: how the kernel rounds a block goes by which values a lane has, and so by the size of elements.
    const std::int64_t rows = std::min(most, shape.m), stride = (shape.k + 7) / 8 * 8;
    MLXN_TRY(const Tensor bytes, gpu::scratch(encoder, static_cast<std::uint64_t>(rows * stride) * block_bytes(x.dtype())));
    MLXN_TRY(staged, bytes.reinterpret(x.dtype(), {rows, stride}));
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
    const HopperVectorPlan plan = plan_hopper_vector(shape.type, m_end - m, shape.n, shape.k, cores, batch_invariant, gated);
    Launch<HopperVectorArgs> launch;
    launch.args = plan.args;
    launch.bind(launch.args.records, weights);
    launch.bind(launch.args.x, rows);
    launch.bind(launch.args.y, y_rows);
    launch.args.x_stride = rows.stride(0);
    launch.args.y_stride = y_rows.stride(0);
    launch.args.x_type = element_type(rows.dtype());
    launch.args.y_type = element_type(y.dtype());
    if (fusion.norm.defined()) {
      launch.bind(launch.args.norm, fusion.norm);
      launch.args.norm_eps = fusion.norm_eps;
    }
    Tensor residual;  // lives until the launch is encoded
    if (fusion.residual.defined()) {
      MLXN_TRY(residual, fusion.residual.slice(0, m, m_end));
      launch.bind(launch.args.residual, residual);
      launch.args.residual_stride = residual.stride(0);
    }
    launch.args.activation = fusion.gate == MatmulGate::gelu ? kHopperVectorGelu : kHopperVectorSilu;
    MLXN_CHECK(gpu::encode_erased(encoder, *vector_kernel(shape.type, plan.rows, plan.cluster), {plan.grid}, &launch.args, launch.record));
  }
  return {};
}

/// The launch for so many rows of x.
HopperTilePlan plan_rows(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t rows, std::uint32_t cores) noexcept {
  const auto n = static_cast<std::uint32_t>(shape.n), k = static_cast<std::uint32_t>(shape.k);
  const auto format = dense_format(shape.type, choice.numerics);
  return format ? plan_hopper_dense(*format, rows, n, k, cores, choice.batch_invariant)
                : plan_hopper_tile(shape.type, rows, n, k, cores, choice.batch_invariant);
}

/// Rows of x made ready, unless they are so, then the product with its fusion, kTileRows rows at a time. plan_of(m): the plan for m
/// rows.
template <class PlanOf>
Result<void> multiply_tiles(CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y, const MatmulShape& shape,
                            const PlanOf& plan_of, const MatmulFusion& fusion = {}) {
  const bool normed = fusion.norm.defined(), gated = fusion.gate != MatmulGate::none;
  const auto plan_fused = [&](std::int64_t m) {
    HopperTilePlan plan = plan_of(static_cast<std::uint32_t>(m));
    if (gated || fusion.residual.defined()) plan.fuse(gated);
    return plan;
  };
  // Of all pieces but the last, and of the last.
  const std::int64_t pieces = (shape.m + kTileRows - 1) / kTileRows, last_rows = shape.m - (pieces - 1) * kTileRows;
  const HopperTilePlan last = plan_fused(last_rows), whole = pieces > 1 ? plan_fused(kTileRows) : last;

  // By x's own stride also where it is one row, so that a row's bits do not depend on its company.
  const std::int64_t x_row_bytes = x.stride(0) * block_bytes(x.dtype());
  const bool mapped = !normed && last.can_map(element_type(x.dtype()), reinterpret_cast<std::uintptr_t>(device_address(x)), x_row_bytes);
  // All memory comes before the first launch: nothing is recorded if there is none.
  Tensor ready, scales, workspace, counters, exponents;
  if (!mapped) {
    MLXN_TRY(ready, gpu::scratch(encoder, std::max(whole.row_bytes, last.row_bytes)));
    MLXN_TRY(scales, gpu::scratch(encoder, std::max(whole.scale_bytes, last.scale_bytes)));
  }
  if (const std::uint32_t count = std::max(whole.counters, last.counters); count != 0) {
    MLXN_TRY(workspace, gpu::scratch(encoder, std::max(whole.workspace_bytes, last.workspace_bytes)));
    MLXN_TRY(counters, gpu::counters(encoder, count));
  }
  if (shape.type != DType::f16) {
    MLXN_TRY(exponents, exponents_of(weights.bytes, shape.type, shape.n, shape.k));
  }

  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const HopperTilePlan& plan = piece + 1 < pieces ? whole : last;
    const std::int64_t m = piece * kTileRows, m_end = std::min(m + kTileRows, shape.m);
    // What is bound lives until the product is encoded.
    MLXN_TRY(const Tensor x_rows, x.slice(0, m, m_end));
    MLXN_TRY(const Tensor y_rows, y.slice(0, m, m_end));
    const Tensor& rows = mapped ? x_rows : ready;
    Tensor residual;

    Launch<HopperTileArgs> product;
    HopperTileArgs& args = product.args;
    args = plan.args;
    gpu::TensorMapSpec map = plan.map, x_map = plan.x_map;
    map.base = device_address(weights.bytes);
    x_map.base = device_address(rows);
    if (mapped) x_map.row_bytes = static_cast<std::uint64_t>(x_row_bytes);
    MLXN_CHECK(gpu::tensor_map(encoder, args.w, map));
    MLXN_CHECK(gpu::tensor_map(encoder, args.x, x_map));
    product.bind(args.w, weights.bytes);
    product.bind(args.x, rows);
    if (scales.defined()) product.bind(args.x_scales, scales);
    if (exponents.defined()) product.bind(args.exponents, exponents);
    product.bind(args.y, y_rows);
    if (plan.counters != 0) {
      product.bind(args.workspace, workspace);
      product.bind(args.counters, counters);
    }
    args.y_stride = y_rows.stride(0);
    args.y_type = element_type(y.dtype());
    args.activation = fusion.gate == MatmulGate::gelu ? kHopperTileGelu : kHopperTileSilu;
    if (fusion.residual.defined()) {
      MLXN_TRY(residual, fusion.residual.slice(0, m, m_end));
      product.bind(args.residual, residual);
      args.residual_stride = residual.stride(0);
    }

    if (!mapped) {
      Launch<HopperStageArgs> stage;
      stage.args = plan.stage;
      stage.bind(stage.args.x, x_rows);
      stage.bind(stage.args.rows, ready);
      stage.bind(stage.args.scales, scales);
      stage.args.x_stride = x_rows.stride(0);
      stage.args.x_type = element_type(x.dtype());
      if (normed) {
        stage.bind(stage.args.norm, fusion.norm);
        stage.args.norm_eps = fusion.norm_eps;
      }
      MLXN_CHECK(gpu::encode_erased(encoder, normed ? kStageNormedKernel : kStageKernel, {plan.stage_grid}, &stage.args, stage.record));
    }
    MLXN_CHECK(gpu::encode_erased(encoder, tile_kernel(plan), {plan.grid[0], plan.grid[1], plan.grid[2]}, &args, product.record));
  }
  return {};
}

}  // namespace

WeightForm hopper_form(DType type) noexcept {
  if (vector_kernel(type, 1) != nullptr) return WeightForm::records;
  return dense_format(type, Numerics::f16) ? WeightForm::rows : WeightForm::prepared;
}

bool takes_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;  // their sizes are 32-bit numbers
  if (!is_block(shape.type)) return choice.route == Route::tile && shape.n < kMost && shape.k < kMost;
  if (choice.route == Route::vector) return vector_rows(shape, choice.batch_invariant, cores) > 0;
  return shape.n < kMost && shape.k < kMost &&
         static_cast<std::int64_t>(quant::record_format(shape.type).tile_bytes(shape.k) / 8) < kMost;
}

std::int64_t hopper_vector_threshold(const MatmulShape& shape, std::uint32_t cores) noexcept {
  return is_block(shape.type) ? vector_rows(shape, false, cores) : 1;
}

Result<void> matmul_hopper(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y,
                           const MatmulShape& shape, const MatmulChoice& choice) {
  return fused_matmul_hopper(op, encoder, x, weights, y, shape, {}, choice);
}

HopperFuses fuses_hopper(WeightForm form, const MatmulShape& shape, MatmulGate gate, const MatmulChoice& choice, std::uint32_t cores) noexcept {
  if (!wants_hopper(form, shape.type, choice.numerics)) return HopperFuses::none;
  const bool gated = gate != MatmulGate::none;
  if (choice.route == Route::tile) {
    if (!takes_hopper(shape, choice, cores)) return HopperFuses::none;
    // A tile of records begins with a whole one of each half.
    return gated && form == WeightForm::records && shape.n % (2 * quant::kRecordRows) != 0 ? HopperFuses::all_but_gate : HopperFuses::all;
  }
  const bool fits = form == WeightForm::records && vector_rows(shape, choice.batch_invariant, cores, gated) > 0;
  return fits ? HopperFuses::all : HopperFuses::none;
}

Result<void> fused_matmul_hopper(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y,
                                 const MatmulShape& shape, const MatmulFusion& fusion, const MatmulChoice& choice) {
  if (choice.route == Route::tile) {
    return multiply_tiles(encoder, x, weights, y, shape,
                          [&](std::uint32_t rows) { return plan_rows(shape, choice, rows, gpu::device_cores(encoder)); }, fusion);
  }
  return multiply_vector(op, encoder, x, weights.bytes, y, shape, choice.batch_invariant, fusion);
}

Result<void> matmul_hopper_kind(CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y, const MatmulShape& shape,
                                Numerics numerics, const HopperKind& wanted, const MatmulFusion& fusion) {
  const auto n = static_cast<std::uint32_t>(shape.n), k = static_cast<std::uint32_t>(shape.k);
  const std::uint32_t cores = wanted.cores != 0 ? wanted.cores : gpu::device_cores(encoder);
  return multiply_tiles(encoder, x, weights, y, shape, [&](std::uint32_t rows) {
    HopperTilePlan plan;
    if (const auto format = dense_format(shape.type, numerics)) {
      plan = plan_dense_shape(*format, tile::dense_shape_of(wanted.kind), rows, n, k, wanted.splits, cores);
      plan.kernel = hopper_dense_name(*format, wanted.kind);
    } else {
      plan = plan_hopper_shape(shape.type, hopper_tile_shape(shape.type, wanted.kind), rows, n, k, wanted.splits, cores);
      plan.kernel = hopper_tile_name(shape.type, wanted.kind);
    }
    return plan;
  }, fusion);
}

MatmulGpuPlan plan_matmul_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept {
  if (choice.route == Route::tile) {
    const HopperTilePlan plan = plan_rows(shape, choice, static_cast<std::uint32_t>(std::min(shape.m, kTileRows)), cores);
    return {plan.kernel, plan.shape.tokens, false, false};
  }
  const std::int64_t most = vector_rows(shape, choice.batch_invariant, cores);
  const HopperVectorPlan plan = plan_hopper_vector(shape.type, std::min(most, shape.m), shape.n, shape.k, cores, choice.batch_invariant);
  return {plan.kernel, most, false, false};
}

std::vector<const gpu::KernelInfo*> hopper_kernels() {
  std::vector<const gpu::KernelInfo*> all = {&kStageKernel, &kStageNormedKernel};
  for (const auto& infos : kVectorKernels)
    for (const gpu::KernelInfo& info : infos) all.push_back(&info);
  for (const gpu::KernelInfo& info : kTileKernels<false>) all.push_back(&info);
  for (const gpu::KernelInfo& info : kTileKernels<true>)
    if (info.cluster.z > 1) all.push_back(&info);
  return all;
}

}  // namespace mlxn::ops
