#include "ops/argmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ArgmaxArgs> argmax_avx512(std::string_view name, DType x) noexcept { return argmax_kernel<Simd<16>>(name, x); }

}  // namespace mlxn::ops
