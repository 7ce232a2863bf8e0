#include "ops/rope/cpu.h"

namespace mlxn::ops {

cpu::Kernel<RopeArgs> rope_neon(std::string_view name, DType x) noexcept { return rope_kernel<Neon>(name, x); }

}  // namespace mlxn::ops
