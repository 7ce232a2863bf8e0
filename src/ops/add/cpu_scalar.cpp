#include "ops/add/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> add_scalar(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<4>, Add>(name, a, b);
}

}  // namespace mlxn::ops
