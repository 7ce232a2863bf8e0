#include "ops/matmul/kernels.h"
#include "simd/neon.h"

namespace mlxn::rows16::neon {

void add_exact_kernels(Kernels& to) noexcept { fill_exact<simd::Neon>(to); }

}  // namespace mlxn::rows16::neon
