#include "ops/add/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ElementwiseArgs> add_avx512(std::string_view name, DType a, DType b) noexcept {
  return elementwise_kernel<Simd<16>, Add>(name, a, b);
}

}  // namespace mlxn::ops
