#include "ops/silu_mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> silu_mul_neon(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Neon, SiluMul>(name, a, b);
}

}  // namespace mlxn::ops
