#include "ops/mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> mul_avx2(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<8>, Mul>(name, a, b);
}

}  // namespace mlxn::ops
