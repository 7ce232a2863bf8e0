#include "ops/matmul/kernels.h"
#include "simd/avx2.h"

namespace mlxn::rows16::avx2 {

void add_exact_kernels(Kernels& to) noexcept { fill_exact<simd::Avx2>(to); }

}  // namespace mlxn::rows16::avx2
