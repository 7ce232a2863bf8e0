#include "ops/matmul/pair_kernels.h"
#include "simd/neon.h"

namespace mlxn::rows16::i8mm {

void add_pair_kernels(Kernels& to) noexcept { fill_pairs<simd::NeonI8mm>(to); }

}  // namespace mlxn::rows16::i8mm
