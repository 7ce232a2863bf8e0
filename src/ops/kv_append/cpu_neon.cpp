#include "ops/kv_append/cpu.h"

namespace mlxn::ops {

cpu::Kernel<KvAppendArgs> kv_append_neon(std::string_view name) noexcept { return cpu::kernel<&kv_append_rows<Neon>>(name); }

}  // namespace mlxn::ops
