#include "ops/softmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<SoftmaxArgs> softmax_avx2(std::string_view name, DType x) noexcept { return softmax_kernel<Simd<8>>(name, x); }

}  // namespace mlxn::ops
