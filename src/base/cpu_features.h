#pragma once

#include <string_view>

namespace mlxn {

/// Instruction-set levels that kernels are compiled for. A higher level includes the lower ones.
enum class CpuIsa : int { scalar = 0, avx2 = 1, avx512 = 2, neon = 3 };

/// Whether this machine runs code of the level: avx2 wants AVX2, FMA, F16C and BMI2; avx512 wants F, BW, DQ, VL, CD, VNNI
/// and VBMI besides.
[[nodiscard]] bool cpu_has(CpuIsa isa) noexcept;
/// The best level that this machine runs.
[[nodiscard]] CpuIsa best_isa() noexcept;
[[nodiscard]] std::string_view to_string(CpuIsa isa) noexcept;

}  // namespace mlxn
