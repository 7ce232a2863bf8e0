#include "base/cpu_features.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

namespace mlxn {

#if defined(__aarch64__)
namespace {

#if defined(__APPLE__)
bool has_feature(const char* name) noexcept {
  int value = 0;
  std::size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() noexcept { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() noexcept { return has_feature("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
bool has_dotprod() noexcept { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_i8mm() noexcept { return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#else  // what the compiler was told
bool has_dotprod() noexcept {
#if defined(__ARM_FEATURE_DOTPROD)
  return true;
#else
  return false;
#endif
}
bool has_i8mm() noexcept {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return true;
#else
  return false;
#endif
}
#endif

}  // namespace
#endif

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
    case CpuIsa::neon:
    case CpuIsa::neon_dotprod:
    case CpuIsa::neon_i8mm: return false;
#elif defined(__aarch64__)
    case CpuIsa::neon: return true;
    case CpuIsa::neon_dotprod: {
      static const bool has = has_dotprod();
      return has;
    }
    case CpuIsa::neon_i8mm: {
      static const bool has = has_dotprod() && has_i8mm();
      return has;
    }
    case CpuIsa::avx2:
    case CpuIsa::avx512: return false;
#else
    default: return false;
#endif
  }
  return false;
}

CpuIsa best_isa() noexcept {
  CpuIsa best = CpuIsa::scalar;
  for (const CpuIsa isa : kIsas) {
    if (cpu_has(isa)) best = isa;
  }
  return best;
}

std::string_view to_string(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::scalar: return "scalar";
    case CpuIsa::avx2: return "avx2";
    case CpuIsa::avx512: return "avx512";
    case CpuIsa::neon: return "neon";
    case CpuIsa::neon_dotprod: return "neon_dotprod";
    case CpuIsa::neon_i8mm: return "neon_i8mm";
  }
  return "unknown";
}

}  // namespace mlxn
