#include "ops/kv_append/cpu.h"

namespace mlxn::ops {

cpu::Kernel<KvAppendArgs> kv_append_avx2(std::string_view name) noexcept { return cpu::kernel<&kv_append_rows<Simd<8>>>(name); }

}  // namespace mlxn::ops
