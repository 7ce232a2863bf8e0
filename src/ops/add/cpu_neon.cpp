#include "ops/add/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> add_neon(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Neon, Add>(name, a, b);
}

}  // namespace mlxn::ops
