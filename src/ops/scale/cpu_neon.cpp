#include "ops/scale/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> scale_neon(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Neon, Scale>(name, a, b);
}

}  // namespace mlxn::ops
