#pragma once

#include <span>

#include "mlxn/weight.h"

namespace mlxn::gpu {

/// Bytes of a prepared matrix.
[[nodiscard]] std::uint64_t prepared_weight_bytes(DType type, std::int64_t n, std::int64_t k) noexcept;
/// The layout of ops/prepare_weight of sources, one above the other, on the same device or in memory that the CPU sees.
[[nodiscard]] Result<Tensor> prepare_weight(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options);
/// The raw blocks of a source in memory that the CPU sees, on the device.
[[nodiscard]] Result<Tensor> upload_weight(const Device& device, const Tensor& source, const PrepareOptions& options);

}  // namespace mlxn::gpu
