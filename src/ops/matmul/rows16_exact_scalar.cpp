#include "ops/matmul/kernels.h"
#include "simd/scalar.h"

namespace mlxn::rows16::scalar {

void add_exact_kernels(Kernels& to) noexcept { fill_exact<simd::Scalar>(to); }

}  // namespace mlxn::rows16::scalar
