#include "ops/matmul/kernels.h"
#include "simd/avx2.h"

namespace mlxn::rows16::avx2 {

void add_quantised_kernels(Kernels& to) noexcept { fill_quantised<simd::Avx2>(to); }

}  // namespace mlxn::rows16::avx2
