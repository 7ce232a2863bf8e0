#include "ops/silu_mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> silu_mul_avx2(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<8>, SiluMul>(name, a, b);
}

}  // namespace mlxn::ops
