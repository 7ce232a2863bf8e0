#pragma once

#include <cstdint>

#include "mlxn/dtype.h"

namespace mlxn::quant {

/// Fills memory with valid random weights of a type that has kernels: every code, mean 0, and block scales such that the
/// weights are about `scale` in size. The same seed gives the same bytes.
void fill_random_blocks(DType type, void* blocks, std::uint64_t n_blocks, float scale, std::uint64_t seed) noexcept;

/// The `scale` with which fill_random_blocks makes weights whose root mean square is `rms`, to a few per cent.
[[nodiscard]] float random_scale(DType type, float rms) noexcept;

}  // namespace mlxn::quant
