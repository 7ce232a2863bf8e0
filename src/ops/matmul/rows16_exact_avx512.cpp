#include "ops/matmul/kernels.h"
#include "simd/avx512.h"

namespace mlxn::rows16::avx512 {

void add_exact_kernels(Kernels& to) noexcept { fill_exact<simd::Avx512>(to); }

}  // namespace mlxn::rows16::avx512
