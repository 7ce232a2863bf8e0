#pragma once

#include <span>

#include "mlxn/weight.h"

namespace mlxn::cpu {

/// Bytes of a prepared matrix.
[[nodiscard]] std::uint64_t prepared_weight_bytes(DType type, std::int64_t n, std::int64_t k) noexcept;
/// The rows16 layout of sources of the same device, one above the other; all but the last have whole groups of rows.
[[nodiscard]] Result<Tensor> prepare_weight(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options);

}  // namespace mlxn::cpu
