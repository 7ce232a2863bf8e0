#pragma once

#include "mlxn/weight.h"

namespace mlxn::cpu {

/// Bytes of a prepared matrix.
[[nodiscard]] std::uint64_t prepared_weight_bytes(DType type, std::int64_t n, std::int64_t k) noexcept;
/// The rows16 layout of a source of the same device.
[[nodiscard]] Result<Tensor> prepare_weight(const Device& device, const Tensor& source, const PrepareOptions& options);

}  // namespace mlxn::cpu
