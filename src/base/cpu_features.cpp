#include "base/cpu_features.h"

namespace mlxn {

bool cpu_has(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::scalar: return true;
#if defined(__x86_64__)
    case CpuIsa::avx2: {
      static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                              __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
      return has;
    }
    case CpuIsa::avx512: {
      static const bool has = cpu_has(CpuIsa::avx2) && __builtin_cpu_supports("avx512f") &&
                              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") &&
                              __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
      return has;
    }
    case CpuIsa::neon: return false;
#elif defined(__aarch64__)
    case CpuIsa::neon: return true;
    case CpuIsa::avx2:
    case CpuIsa::avx512: return false;
#else
    default: return false;
#endif
  }
  return false;
}

CpuIsa best_isa() noexcept {
  for (const CpuIsa isa : {CpuIsa::avx512, CpuIsa::avx2, CpuIsa::neon}) {
    if (cpu_has(isa)) return isa;
  }
  return CpuIsa::scalar;
}

std::string_view to_string(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::scalar: return "scalar";
    case CpuIsa::avx2: return "avx2";
    case CpuIsa::avx512: return "avx512";
    case CpuIsa::neon: return "neon";
  }
  return "unknown";
}

}  // namespace mlxn
