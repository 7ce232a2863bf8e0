#include "ops/softcap/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> softcap_neon(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Neon, Softcap>(name, a, b);
}

}  // namespace mlxn::ops
