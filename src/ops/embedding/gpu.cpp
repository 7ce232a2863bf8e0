#include "ops/embedding/gpu.h"

#include <algorithm>

#include "backends/gpu/launch.h"
#include "backends/weight_impl.h"
#include "ops/embedding/kernel.h"
#include "ops/prepare_weight/prepare_weight.h"

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
    default: return {};  // no weight type: a Weight is of one
  }
}

}  // namespace

Result<void> embedding_gpu(CommandEncoder& encoder, const Tensor& ids, const Weight& table, const Tensor& y, float scale) {
  const WeightImpl& weight = *table.impl();
  MLXN_CHECK(check_gpu_row("embedding", weight.dtype, weight.k));
  Launch<EmbeddingGpuArgs> launch;
  EmbeddingGpuArgs& args = launch.args;
  const WeightLayout layout = weight.prepared ? prepared_layout(weight.dtype, weight.n, weight.k)
                                              : raw_layout(weight.dtype, weight.n, weight.k);
  args.table = layout.view;
  launch.bind(args.ids, ids);
  launch.bind(args.table.data, weight.storage);
  launch.bind(args.y, y);
  set_even(weight.dtype, args.table, device_address(weight.storage));
  args.n = weight.n;
  args.dim = weight.k;
  args.y_stride = y.stride(0);
  args.y_type = element_type(y.dtype());
  args.scale = scale;
  MLXN_TRY(const std::uint32_t tokens, gpu::groups_for("embedding", ids.dim(0), 1));
  constexpr std::int64_t kElems = std::int64_t{gpu::kChunkElems} * gpu::Embedding<gpu::Q4_0>::kThreads;
  const std::int64_t pieces = std::min<std::int64_t>((weight.k + kElems - 1) / kElems, gpu::kMaxGridYZ);
  return gpu::encode(encoder, kernel_of(weight.dtype), {tokens, static_cast<std::uint32_t>(pieces)}, launch);
}

}  // namespace ops
}  // namespace mlxn
