#include "ops/rms_norm/cpu.h"

namespace mlxn::ops {

cpu::Kernel<RmsNormArgs> rms_norm_neon(std::string_view name, DType x, DType w) noexcept {
  return rms_norm_kernel<Neon>(name, x, w);
}

}  // namespace mlxn::ops
