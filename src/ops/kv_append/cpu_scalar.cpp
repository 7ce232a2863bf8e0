#include "ops/kv_append/cpu.h"

namespace mlxn::ops {

cpu::Kernel<KvAppendArgs> kv_append_scalar(std::string_view name) noexcept { return cpu::kernel<&kv_append_rows<Simd<4>>>(name); }

}  // namespace mlxn::ops
