#include "ops/softmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<SoftmaxArgs> softmax_neon(std::string_view name, DType x) noexcept { return softmax_kernel<Neon>(name, x); }

}  // namespace mlxn::ops
