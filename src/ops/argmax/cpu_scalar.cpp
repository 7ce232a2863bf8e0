#include "ops/argmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ArgmaxArgs> argmax_scalar(std::string_view name, DType x) noexcept { return argmax_kernel<Simd<4>>(name, x); }

}  // namespace mlxn::ops
