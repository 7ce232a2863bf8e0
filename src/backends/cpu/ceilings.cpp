#include "backends/cpu/ceilings.h"

#include "base/cpu_features.h"

namespace mlxn::cpu {

const CeilingLoops& ceiling_loops() noexcept {
#if defined(__x86_64__)
  if (cpu_has(CpuIsa::avx512)) return avx512::kCeilingLoops;
  if (cpu_has(CpuIsa::avx2)) return avx2::kCeilingLoops;
#elif defined(__aarch64__)
  if (cpu_has(CpuIsa::neon_i8mm)) return i8mm::kCeilingLoops;
  if (cpu_has(CpuIsa::neon_dotprod)) return dotprod::kCeilingLoops;
  if (cpu_has(CpuIsa::neon)) return neon::kCeilingLoops;
#endif
  return scalar::kCeilingLoops;
}

}  // namespace mlxn::cpu
