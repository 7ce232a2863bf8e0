#include "base/cpu_features.h"

#include <algorithm>
#include <span>

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

#if defined(__x86_64__)
namespace {

/// What a level wants of the processor, by the name that its makers use.
struct Feature {
  std::string_view name;
  bool (*has)() noexcept;
};
#define MLXN_FEATURE(name) {name, []() noexcept { return __builtin_cpu_supports(name) != 0; }}
constexpr Feature kAvx2[] = {MLXN_FEATURE("avx2"), MLXN_FEATURE("fma"), MLXN_FEATURE("f16c"), MLXN_FEATURE("bmi2")};
constexpr Feature kAvx512[] = {MLXN_FEATURE("avx512f"),  MLXN_FEATURE("avx512bw"), MLXN_FEATURE("avx512dq"),   MLXN_FEATURE("avx512vl"),
                               MLXN_FEATURE("avx512cd"), MLXN_FEATURE("avx512vnni"), MLXN_FEATURE("avx512vbmi")};
#undef MLXN_FEATURE

bool has_all(std::span<const Feature> features) noexcept {
  return std::all_of(features.begin(), features.end(), [](const Feature& f) { return f.has(); });
}

}  // namespace
#endif

bool cpu_has(CpuIsa isa) noexcept {
  switch (isa) {
    case CpuIsa::scalar: return true;
#if defined(__x86_64__)
    case CpuIsa::avx2: {
      static const bool has = has_all(kAvx2);
      return has;
    }
    case CpuIsa::avx512: {
      static const bool has = has_all(kAvx2) && has_all(kAvx512);
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

std::string cpu_lacks(CpuIsa isa) {
  if (cpu_has(isa)) return {};
  std::string names;
#if defined(__x86_64__)
  const auto add = [&](std::span<const Feature> features) {
    for (const Feature& f : features) {
      if (!f.has()) names += (names.empty() ? "" : ", ") + std::string(f.name);
    }
  };
  if (isa == CpuIsa::avx2 || isa == CpuIsa::avx512) add(kAvx2);
  if (isa == CpuIsa::avx512) add(kAvx512);
#endif
  return names.empty() ? std::string(to_string(isa)) : names;
}

bool cpu_fetches_late() noexcept {
#if defined(__x86_64__)
  static const bool intel = __builtin_cpu_is("intel") != 0;
  return intel;
#else
  return false;
#endif
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
