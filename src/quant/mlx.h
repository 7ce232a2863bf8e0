#pragma once

#include <cstdint>

#include "mlxn/dtype.h"

namespace mlxn::quant {

/// Groups as MLX keeps them, one after the other, to blocks of the type, an affine one or mxfp4.
/// codes: as many whole words for each group as its codes fill. scales, biases: an element for each group; mxfp4 has no biases.
void pack_mlx(DType type, const std::uint32_t* codes, const void* scales, const void* biases, std::uint64_t groups, void* blocks) noexcept;

}  // namespace mlxn::quant
