#include "ops/mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> mul_avx512(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<16>, Mul>(name, a, b);
}

}  // namespace mlxn::ops
