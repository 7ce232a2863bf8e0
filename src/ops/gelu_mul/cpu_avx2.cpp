#include "ops/gelu_mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> gelu_mul_avx2(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<8>, GeluMul>(name, a, b);
}

}  // namespace mlxn::ops
