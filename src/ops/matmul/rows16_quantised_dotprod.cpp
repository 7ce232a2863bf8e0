#include "ops/matmul/kernels.h"
#include "simd/neon.h"

namespace mlxn::rows16::dotprod {

void add_quantised_kernels(Kernels& to) noexcept { fill_quantised<simd::NeonDotprod>(to); }

}  // namespace mlxn::rows16::dotprod
