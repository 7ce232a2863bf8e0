#include "ops/rope/cpu.h"

namespace mlxn::ops {

cpu::Kernel<RopeArgs> rope_avx2(std::string_view name, DType x) noexcept { return rope_kernel<Simd<8>>(name, x); }

}  // namespace mlxn::ops
