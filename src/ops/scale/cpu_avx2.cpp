#include "ops/scale/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> scale_avx2(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<8>, Scale>(name, a, b);
}

}  // namespace mlxn::ops
