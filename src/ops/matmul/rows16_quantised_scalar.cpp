#include "ops/matmul/kernels.h"
#include "simd/scalar.h"

namespace mlxn::rows16::scalar {

void add_quantised_kernels(Kernels& to) noexcept { fill_quantised<simd::Scalar>(to); }

}  // namespace mlxn::rows16::scalar
