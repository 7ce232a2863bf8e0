#include "ops/argmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<ArgmaxArgs> argmax_neon(std::string_view name, DType x) noexcept { return argmax_kernel<Neon>(name, x); }

}  // namespace mlxn::ops
