#include "ops/softcap/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> softcap_avx512(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<16>, Softcap>(name, a, b);
}

}  // namespace mlxn::ops
