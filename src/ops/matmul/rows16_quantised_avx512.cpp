#include "ops/matmul/kernels.h"
#include "simd/avx512.h"

namespace mlxn::rows16::avx512 {

void add_quantised_kernels(Kernels& to) noexcept { fill_quantised<simd::Avx512>(to); }

}  // namespace mlxn::rows16::avx512
