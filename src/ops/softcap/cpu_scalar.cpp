#include "ops/softcap/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> softcap_scalar(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<4>, Softcap>(name, a, b);
}

}  // namespace mlxn::ops
