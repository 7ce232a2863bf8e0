#include "ops/mul/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> mul_neon(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Neon, Mul>(name, a, b);
}

}  // namespace mlxn::ops
