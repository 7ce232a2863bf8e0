#include "ops/add_rms_norm/cpu.h"

namespace mlxn::ops {

cpu::Kernel<AddRmsNormArgs> add_rms_norm_avx2(std::string_view name, DType x, DType w) noexcept {
  return add_rms_norm_kernel<Simd<8>>(name, x, w);
}

}  // namespace mlxn::ops
