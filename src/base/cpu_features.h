#pragma once

#include <string>
#include <string_view>

namespace mlxn {

/// Instruction-set levels that kernels are compiled for. Within an architecture a higher level includes the lower ones.
enum class CpuIsa : int { scalar = 0, avx2 = 1, avx512 = 2, neon = 3, neon_dotprod = 4, neon_i8mm = 5 };
inline constexpr int kCpuIsaCount = 6;

/// The levels that this build has kernels for, the best last.
inline constexpr CpuIsa kIsas[] = {
    CpuIsa::scalar,
#if defined(__x86_64__)
    CpuIsa::avx2,
    CpuIsa::avx512,
#elif defined(__aarch64__)
    CpuIsa::neon,
    CpuIsa::neon_dotprod,
    CpuIsa::neon_i8mm,
#endif
};

/// Whether this machine runs code of the level: avx2 wants AVX2, FMA, F16C and BMI2; avx512 wants F, BW, DQ, VL, CD, VNNI
/// and VBMI besides. neon is every ARM64; neon_dotprod wants the dot products of bytes (FEAT_DotProd), neon_i8mm their
/// matrix products (FEAT_I8MM) besides.
[[nodiscard]] bool cpu_has(CpuIsa isa) noexcept;
/// What this machine lacks of it, for messages ("avx512vnni, avx512vbmi"); empty if nothing.
[[nodiscard]] std::string cpu_lacks(CpuIsa isa);
/// Whether a core's own streams leave a good part of the memory's bandwidth unused unless code asks for its data ahead:
/// measured on Intel's server cores; on Zen 4 asking gained nothing (docs/tried.md).
[[nodiscard]] bool cpu_fetches_late() noexcept;
/// The best level that this machine runs.
[[nodiscard]] CpuIsa best_isa() noexcept;
[[nodiscard]] std::string_view to_string(CpuIsa isa) noexcept;

}  // namespace mlxn
