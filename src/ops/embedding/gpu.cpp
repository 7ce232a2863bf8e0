#include "ops/embedding/gpu.h"

#include <algorithm>

#include "backends/gpu/launch.h"
#include "backends/weight_impl.h"
#include "ops/embedding/kernel.h"
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

gpu::Kernel<EmbeddingGpuArgs> kernel_of(DType type) noexcept {
  using namespace gpu;
  switch (type) {
    case DType::f32: return embedding_f32;
    case DType::f16: return embedding_f16;
    case DType::bf16: return embedding_bf16;
    case DType::q4_0: return embedding_q4_0;
    case DType::q4_1: return embedding_q4_1;
    case DType::q5_0: return embedding_q5_0;
    case DType::q5_1: return embedding_q5_1;
    case DType::q8_0: return embedding_q8_0;
    case DType::q2_K: return embedding_q2_K;
    case DType::q3_K: return embedding_q3_K;
    case DType::q4_K: return embedding_q4_K;
    case DType::q5_K: return embedding_q5_K;
    case DType::q6_K: return embedding_q6_K;
    case DType::iq4_nl: return embedding_iq4_nl;
    case DType::iq4_xs: return embedding_iq4_xs;
    case DType::mxfp4: return embedding_mxfp4;
    default: break;
  }
  const auto affine = affine_info(type);
  if (!affine) return {};  // no weight type: a Weight is of one
  return affine->bits == 4 ? embedding_affine4 : embedding_affine8;
}

}  // namespace

namespace {

// Of rows that are gathered from records at a time.
constexpr std::int64_t kGatheredBytes = std::int64_t{32} << 20;

/// One launch; the table lies as `layout` says, `gathered` as in EmbeddingGpuArgs.
Result<void> look_up(CommandEncoder& encoder, const Tensor& ids, const WeightImpl& weight, const Tensor& table, const WeightLayout& layout,
                     bool gathered, const Tensor& y, float scale) {
  Launch<EmbeddingGpuArgs> launch;
  EmbeddingGpuArgs& args = launch.args;
  args.table = layout.view;
  launch.bind(args.ids, ids);
  launch.bind(args.table.data, table);
  launch.bind(args.y, y);
  set_even(weight.dtype, args.table, device_address(table));
  args.n = weight.n;
  args.dim = weight.k;
  args.y_stride = y.stride(0);
  args.y_type = element_type(y.dtype());
  args.scale = scale;
  args.gathered = gathered ? 1 : 0;
  MLXN_TRY(const std::uint32_t tokens, gpu::groups_for("embedding", ids.dim(0), 1));
  constexpr std::int64_t kElems = std::int64_t{gpu::kChunkElems} * gpu::Embedding<gpu::Q4_0>::kThreads;
  const std::int64_t pieces = std::min<std::int64_t>((weight.k + kElems - 1) / kElems, gpu::kMaxGridYZ);
  return gpu::encode(encoder, kernel_of(weight.dtype), {tokens, static_cast<std::uint32_t>(pieces)}, launch);
}

}  // namespace

Result<void> embedding_gpu(CommandEncoder& encoder, const Tensor& ids, const Weight& table, const Tensor& y, float scale) {
  const WeightImpl& weight = *table.impl();
  MLXN_CHECK(check_gpu_row("embedding", weight.dtype, weight.k));
  if (weight.form != WeightForm::records) {
    const WeightLayout layout = weight.form == WeightForm::raw ? raw_layout(weight.dtype, weight.n, weight.k)
                                                               : prepared_layout(weight.dtype, weight.n, weight.k);
    return look_up(encoder, ids, weight, weight.storage, layout, false, y, scale);
  }
  const auto row_bytes = static_cast<std::int64_t>(raw_layout(weight.dtype, 1, weight.k).bytes);
  const std::int64_t step = std::clamp<std::int64_t>(kGatheredBytes / row_bytes, 1, ids.dim(0));
  const WeightLayout layout = prepared_layout(weight.dtype, step, weight.k);
  MLXN_TRY(const Tensor rows, gpu::scratch(encoder, layout.bytes));
  for (std::int64_t begin = 0; begin < ids.dim(0); begin += step) {
    const std::int64_t end = std::min(begin + step, ids.dim(0));
    MLXN_TRY(const Tensor some, ids.slice(0, begin, end));
    MLXN_TRY(const Tensor y_rows, y.slice(0, begin, end));
    MLXN_CHECK(encode_unpack_records(encoder, weight.storage, rows, layout.view, weight.dtype, weight.n, weight.k, {0, end - begin, &some}));
    MLXN_CHECK(look_up(encoder, some, weight, rows, layout, true, y_rows, scale));
  }
  return {};
}

}  // namespace ops
}  // namespace mlxn
