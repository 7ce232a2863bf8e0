#include "ops/argmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ArgmaxArgs> argmax_avx2(std::string_view name, DType x) noexcept { return argmax_kernel<Simd<8>>(name, x); }

}  // namespace mlxn::ops
