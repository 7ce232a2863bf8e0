#include "ops/matmul/kernels.h"
#include "simd/neon.h"

namespace mlxn::rows16::neon {

void add_quantised_kernels(Kernels& to) noexcept { fill_quantised<simd::Neon>(to); }

}  // namespace mlxn::rows16::neon
