#include "ops/rope/cpu.h"

namespace mlxn::ops {

cpu::Kernel<RopeArgs> rope_avx512(std::string_view name, DType x) noexcept { return rope_kernel<Simd<16>>(name, x); }

}  // namespace mlxn::ops
