#include "ops/add_rms_norm/cpu.h"

namespace mlxn::ops {

cpu::Kernel<AddRmsNormArgs> add_rms_norm_scalar(std::string_view name, DType x, DType w) noexcept {
  return add_rms_norm_kernel<Simd<4>>(name, x, w);
}

}  // namespace mlxn::ops
