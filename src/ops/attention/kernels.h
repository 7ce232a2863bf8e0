#pragma once

#include "backends/cpu/context.h"
#include "ops/attention/args.h"

namespace mlxn::ops {

using AttentionKernel = void(const AttentionArgs&, const CpuContext&);

AttentionKernel attention_tiled_f32_scalar, attention_tiled_f16_scalar, attention_split_f32_scalar, attention_split_f16_scalar;
#if defined(__x86_64__)
AttentionKernel attention_tiled_f32_avx2, attention_tiled_f16_avx2, attention_split_f32_avx2, attention_split_f16_avx2;
AttentionKernel attention_tiled_f32_avx512, attention_tiled_f16_avx512, attention_split_f32_avx512, attention_split_f16_avx512;
#elif defined(__aarch64__)
AttentionKernel attention_tiled_f32_neon, attention_tiled_f16_neon, attention_split_f32_neon, attention_split_f16_neon;
#endif

}  // namespace mlxn::ops
