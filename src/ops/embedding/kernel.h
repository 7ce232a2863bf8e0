#pragma once

#include "ops/embedding/args.h"
#include "portable/dialect.h"
#include "quant/kernel_decode.h"

namespace mlxn {
namespace gpu {

/// A thread decodes a chunk of 32 elements of a token's row; chunks go along the grid's y, tokens along its x. Blocks may
/// begin at any address. A token costs a row, so nothing but the launch bounds it.
template <class F>
struct Embedding {
  using Args = ops::EmbeddingGpuArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 128;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t token = t.group.x;
    const uint32_t id = args.ids.ptr[token];
    const uint32_t chunks = uint32_t((args.dim + kChunkElems - 1) / kChunkElems);
    for (uint32_t chunk = t.group.y * kThreads + t.index; chunk < chunks; chunk += t.groups.y * kThreads) {
      float v[kChunkElems];
      if (id < args.n) {
        const int64_t row = args.gathered ? token : int64_t(id);
        WeightRow<F>::template load<false>(args.table, row * args.table.row_blocks, args.dim, chunk, v);
      } else {
        MLXN_UNROLL
        for (uint32_t i = 0; i < kChunkElems; ++i) v[i] = 0.0f;
      }
      MLXN_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        const int64_t at = WeightRow<F>::start(chunk, half);
        MLXN_UNROLL
        for (uint32_t i = 0; i < kHalfElems; ++i) {
          if (!WeightRow<F>::kWhole && at + i >= args.dim) continue;
          store_as(args.y.ptr, args.y_type, token * args.y_stride + at + i, v[kHalfElems * half + i] * args.scale);
        }
      }
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)                       \
  KERNEL(embedding_f32, Embedding<Plain<float>>)   \
  KERNEL(embedding_f16, Embedding<Plain<f16>>)     \
  KERNEL(embedding_bf16, Embedding<Plain<bf16>>)   \
  KERNEL(embedding_q4_0, Embedding<Q4_0>)          \
  KERNEL(embedding_q4_1, Embedding<Q4_1>)          \
  KERNEL(embedding_q5_0, Embedding<Q5_0>)          \
  KERNEL(embedding_q5_1, Embedding<Q5_1>)          \
  KERNEL(embedding_q8_0, Embedding<Q8_0>)          \
  KERNEL(embedding_q2_K, Embedding<Q2K>)           \
  KERNEL(embedding_q3_K, Embedding<Q3K>)           \
  KERNEL(embedding_q4_K, Embedding<Q4K>)           \
  KERNEL(embedding_q5_K, Embedding<Q5K>)           \
  KERNEL(embedding_q6_K, Embedding<Q6K>)           \
  KERNEL(embedding_iq4_nl, Embedding<Iq4Nl>)       \
  KERNEL(embedding_iq4_xs, Embedding<Iq4Xs>)       \
  KERNEL(embedding_mxfp4, Embedding<Mxfp4>)        \
  KERNEL(embedding_affine4, Embedding<Affine<4>>)  \
  KERNEL(embedding_affine8, Embedding<Affine<8>>)
