#include "ops/attention/cpu.h"
#include "ops/attention/kernels.h"

namespace mlxn::ops {

void attention_tiled_f32_neon(const AttentionArgs& args, const CpuContext& context) {
  Attention<Neon, float>(args).tiled(context);
}
void attention_tiled_f16_neon(const AttentionArgs& args, const CpuContext& context) {
  Attention<Neon, std::uint16_t>(args).tiled(context);
}
void attention_split_f32_neon(const AttentionArgs& args, const CpuContext& context) {
  Attention<Neon, float>(args).split(context);
}
void attention_split_f16_neon(const AttentionArgs& args, const CpuContext& context) {
  Attention<Neon, std::uint16_t>(args).split(context);
}

}  // namespace mlxn::ops
