#include "ops/rope/cpu.h"

namespace mlxn::ops {

cpu::Kernel<RopeArgs> rope_scalar(std::string_view name, DType x) noexcept { return rope_kernel<Simd<4>>(name, x); }

}  // namespace mlxn::ops
