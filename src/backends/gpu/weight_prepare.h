#pragma once

#include <span>

#include "backends/weight_impl.h"

namespace mlxn::gpu {

/// How weights of a type are prepared on a device: as Hopper's kernels want them where it has some for the type.
[[nodiscard]] WeightForm prepared_form(const Device& device, DType type) noexcept;
/// Bytes of a prepared matrix.
[[nodiscard]] std::uint64_t prepared_weight_bytes(WeightForm form, DType type, std::int64_t n, std::int64_t k) noexcept;

/// The layout of ops/prepare_weight, records or rows, of sources, one above the other, on the same device or in memory that the CPU
/// sees.
[[nodiscard]] Result<Tensor> prepare_weight(const Device& device, std::span<const Tensor> sources, const PrepareOptions& options,
                                            WeightForm form);
/// The raw blocks of a source in memory that the CPU sees, on the device.
[[nodiscard]] Result<Tensor> upload_weight(const Device& device, const Tensor& source, const PrepareOptions& options);

}  // namespace mlxn::gpu
