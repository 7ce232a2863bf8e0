#include "ops/softmax/cpu.h"

namespace mlxn::ops {

cpu::Kernel<SoftmaxArgs> softmax_avx512(std::string_view name, DType x) noexcept { return softmax_kernel<Simd<16>>(name, x); }

}  // namespace mlxn::ops
