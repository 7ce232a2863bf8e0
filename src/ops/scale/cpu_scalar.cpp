#include "ops/scale/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> scale_scalar(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<4>, Scale>(name, a, b);
}

}  // namespace mlxn::ops
