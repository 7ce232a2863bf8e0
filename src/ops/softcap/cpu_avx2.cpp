#include "ops/softcap/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> softcap_avx2(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<8>, Softcap>(name, a, b);
}

}  // namespace mlxn::ops
