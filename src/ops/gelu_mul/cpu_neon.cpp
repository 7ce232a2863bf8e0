#include "ops/gelu_mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> gelu_mul_neon(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Neon, GeluMul>(name, a, b);
}

}  // namespace mlxn::ops
